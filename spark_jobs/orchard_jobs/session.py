"""The Spark session of a job. Needs no SparkContext, so it is the same on Spark Connect, EMR and Databricks."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

_SETTINGS = {
    # Spark hands out numbers: compiling Java for that costs more than it saves.
    "spark.sql.codegen.wholeStage": "false",
}
_OWNER_POLL_SECONDS = 2.0


@contextmanager
def session(name: str) -> Iterator[SparkSession]:
    """Give the session that the platform has, as it is, or a new one that ends with the block.

    A platform's own (Databricks) takes few settings, and does not outlive being stopped.
    """
    given = SparkSession.getActiveSession()
    if given is not None:
        yield given
        return
    builder = SparkSession.builder.appName(name)
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    try:
        yield made
    finally:
        made.stop()


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
