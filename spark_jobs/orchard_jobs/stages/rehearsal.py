"""rehearse: the stages' one Spark operation, so that a JVM can archive the classes that it loads.

A start of Spark is most of a small job, and loading classes is most of the start. `-XX:ArchiveClassesAtExit` around this and
`-XX:SharedArchiveFile` around a job is how Java shares them (JEP 350).
"""

from pyspark.sql import SparkSession

from orchard_jobs.stages.tasks import run_tasks


def rehearse(spark: SparkSession) -> int:
    """Hand out some numbers, twice; return how many came back."""
    return len(run_tasks(spark, 4, str)) + len(run_tasks(spark, 8, str, at_most=2))
