"""A Spark that is started on this machine for one job, and is reached by nobody else.

Its start is most of a small job.
"""

from pathlib import Path

# One compiler tier and the serial collector halve the JVM's share of a start. A class archive serves only a JVM with the
# options that it was made with.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def local_java_options(class_archive: str | None) -> str:
    """Return a driver's options on this machine. Java silently ignores an archive that is missing or another Java's."""
    archive = f' -XX:SharedArchiveFile="{class_archive}" -Xlog:cds=off -Xlog:cds+dynamic=off'
    return JAVA_OPTIONS + (archive if class_archive else "")


def local_spark_conf(class_archive: str | None) -> dict[str, str]:
    """Return the settings of a Spark on this machine, with a class archive's path or without."""
    return {
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": local_java_options(class_archive),
        # PySpark's own daemon would import PySpark from a zip: see `entry.take_installed_pyspark`.
        "spark.python.daemon.module": "orchard_jobs.entry.python_daemon",
    }


def class_archive_of(environment: Path) -> Path:
    """Return where `make setup` puts the class archive of an environment with a Spark."""
    return environment / "spark.jsa"


def submit_command(environment: Path, cores: int = 2) -> list[str]:
    """Return the first words of a job's command line, by an environment's Spark, as the local launcher submits it.

    Spark tries a task four times, as on a cluster, so that a killed worker does not end the job.
    """
    conf = local_spark_conf(str(class_archive_of(environment)))
    options = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    return [str(environment / "bin" / "spark-submit"), "--master", f"local[{cores},4]", *options]
