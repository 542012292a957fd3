"""How far Spark has come with its work: by its status tracker, or on Spark Connect by what the server reports."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pyspark.sql import SparkSession


class SparkProgress:
    """The finished tasks of a session's stages, as far as Spark tells.

    Args:
        spark: the session; it may be a Spark Connect one.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._finished: dict[int, int] = {}
        # Of Spark Connect's last report: whether work is asked for of which no task runs.
        self._is_queued = False
        take_report: Any = self._take_report
        with suppress(Exception):  # only a session of Spark Connect takes one, from 4.0 on
            spark.registerProgressHandler(take_report)

    def _take_report(self, stages: Iterable[Any] | None, inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        self._finished.update({stage.stage_id: stage.num_completed_tasks for stage in stages or ()})
        self._is_queued = not done and inflight_tasks == 0

    def finished_tasks(self) -> object:
        """Return what changes whenever a task has finished, and all the time while Spark waits for executors to run any."""
        is_queued = self._is_queued
        with suppress(Exception):  # Spark Connect has no context, and a platform may deny it: the images are counted all the same
            tracker = self._spark.sparkContext.statusTracker()
            stages = [info for stage in tracker.getActiveStageIds() if (info := tracker.getStageInfo(stage))]
            self._finished.update({info.stageId: info.numCompletedTasks for info in stages})
            is_queued = bool(stages) and not any(info.numActiveTasks for info in stages)
        return object() if is_queued else self._finished.copy()

    def cancel(self) -> None:
        """Have Spark give up all that it was asked for."""
        for cancel in (lambda: self._spark.interruptAll(), lambda: self._spark.sparkContext.cancelAllJobs()):
            with suppress(Exception):  # a session has one of them or both
                cancel()
