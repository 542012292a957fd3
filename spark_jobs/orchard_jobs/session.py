"""The Spark session of a job. Needs no SparkContext, so it is the same on Spark Connect, EMR and Databricks."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

_SETTINGS = {
    # Spark hands out numbers: compiling Java for that costs more than it saves.
    "spark.sql.codegen.wholeStage": "false",
}
_OWNER_POLL_SECONDS = 2.0
# Spark names the active session only to the thread that made it.
_made: list[SparkSession] = []


@contextmanager
def session(name: str) -> Iterator[SparkSession]:
    """Give the session that the platform has, as it is, or a new one that ends with the block.

    A platform's own session (Databricks) takes few settings, and cannot be started again once it is stopped.
    """
    given = SparkSession.getActiveSession()
    if given is not None:
        yield given
        return
    builder = SparkSession.builder.appName(name)
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    _made.append(made)
    try:
        yield made
    finally:
        _made.remove(made)
        made.stop()


def end_with_owner() -> None:
    """End this driver, and what it runs on Spark, when the process named by ORCHARD_OWNER_PID is gone, or at SIGTERM.

    A task process that is killed with -9 cannot end the job that it started; without this the job would go on beside the
    retry's. Without the variable (every cluster) no owner is watched.
    """
    parent = os.getppid()

    def end(*_: object) -> None:
        if "SPARK_REMOTE" in os.environ:
            # A server goes on with what was asked of it, whether somebody waits for it or not.
            with suppress(Exception):
                for made in _made:
                    made.interruptAll()
        else:
            # The JVM is this process's parent under spark-submit.
            os.kill(parent, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(owner: int) -> None:
        while _is_running(owner):
            time.sleep(_OWNER_POLL_SECONDS)
        end()

    if "SPARK_REMOTE" in os.environ:
        # In a thread of its own: the main one may be inside a call to the server.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
    if "ORCHARD_OWNER_PID" in os.environ:
        owner = int(os.environ["ORCHARD_OWNER_PID"])
        threading.Thread(target=watch, args=(owner,), name="owner-watch", daemon=True).start()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
