"""Ends a job that makes no progress. The driver watches itself, so the time that a job waits in a queue does not count,
nor does the time that Spark waits for executors.

Progress is a finished task of Spark's or of the driver's own, and a running count of images that was written.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from orchard_jobs.contract.layout import progress_folder
from orchard_jobs.errors import JobError
from orchard_jobs.stages.spark_progress import SparkProgress
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

# Between two looks, and how long a cancelled job may take to notice.
_POLL_SECONDS, _CANCEL_SECONDS = 20.0, 60.0


@contextmanager
def ended_when_stalled(workers: Workers, warehouse: Warehouse, stage: str, work: str, minutes: float) -> Iterator[None]:
    """Cancel the block's Spark work once it has made no progress for too long.

    Raises:
        JobError: the block failed because it was cancelled. A block that does not notice is ended with its process.
    """
    over = threading.Event()
    spark = SparkProgress(workers.spark)
    watch = _Watch(_Progress(spark, workers, warehouse, work), spark.cancel, stage, minutes, over)
    thread = threading.Thread(target=watch.run, name="stall-watch", daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        if watch.is_stalled:
            raise JobError(watch.message) from error
        raise
    finally:
        over.set()
        thread.join()


@dataclass
class _Watch:
    """Looks at the progress now and then, until the job is over."""

    progress: Callable[[], object]
    cancel: Callable[[], None]
    stage: str
    minutes: float
    over: threading.Event
    is_stalled: bool = False

    @property
    def message(self) -> str:
        """What is known of a job without progress."""
        return (
            f"no progress for {self.minutes:g} minutes at stage {self.stage}: no task of it finished and no image was counted. "
            "Look for a worker that waits (for the store, for memory) in the job's log. Nothing is published; the task's retry "
            "runs it again. If your images take longer, raise ORCHARD_STALL_MINUTES"
        )

    def run(self) -> None:
        """Watch; cancel once there was no progress for too long, and end this process when that does not help."""
        seen, since = self.progress(), time.monotonic()
        while not self.over.wait(min(_POLL_SECONDS, self.minutes * 15)):
            found = self.progress()
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since >= self.minutes * 60:
                self.is_stalled = True
                sys.stderr.write(f"JobError: {self.message}\n")
                self.cancel()
                if not self.over.wait(_CANCEL_SECONDS):
                    _end_process()
                return


@dataclass(frozen=True)
class _Progress:
    """What changes while a job makes progress."""

    spark: SparkProgress
    workers: Workers
    warehouse: Warehouse
    work: str

    def __call__(self) -> object:
        return self.spark.finished_tasks(), len(self.workers.own_tasks), self._counts()

    def _counts(self) -> Any:
        with suppress(Exception):  # a store that fails for a while is no progress, and no reason to end the watch
            return sorted((file.path, file.modified_at) for file in self.warehouse.files(progress_folder(self.work)))
        return None


def _end_process() -> None:
    os._exit(1)
