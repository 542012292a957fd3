"""The Spark session of a job. Needs no SparkContext, so it is the same on Spark Connect, EMR and Databricks."""

import os
import signal
import threading
import time

from pyspark.sql import SparkSession

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # Spark's default, INT96, is deprecated in Parquet and read back without a time zone.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # One Arrow batch of feature vectors stays near 5 MB.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1024",
    # Rows are worked on in Python; compiling Java for a query costs more than it saves on a batch's entries.
    "spark.sql.codegen.wholeStage": "false",
    # What is shuffled is one batch's entries and vectors, never a table.
    "spark.sql.shuffle.partitions": "8",
}
_OWNER_POLL_SECONDS = 2.0


def open_session(name: str) -> SparkSession:
    """Return the session that the platform gives, or a new one; sets only what can be set at run time."""
    session = SparkSession.builder.appName(name).getOrCreate()
    for key, value in _SETTINGS.items():
        session.conf.set(key, value)
    return session


def end_with_owner() -> None:
    """End this driver and its JVM when the process named by ORCHARD_OWNER_PID is gone.

    A task process that is killed with -9 cannot end the job that it started; without this the job would go on beside the
    retry's. Without the variable (every cluster) nothing is watched.
    """
    owner = os.environ.get("ORCHARD_OWNER_PID")
    if owner is None:
        return
    parent = os.getppid()

    def watch() -> None:
        while _is_running(int(owner)):
            time.sleep(_OWNER_POLL_SECONDS)
        # The JVM is this process's parent under spark-submit.
        for pid in (parent, os.getpid()):
            os.kill(pid, signal.SIGKILL)

    threading.Thread(target=watch, name="owner-watch", daemon=True).start()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
