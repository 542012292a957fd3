"""Spark's workers, and the numbered tasks that they run. A task gets its number and returns a text; all else is in the warehouse.

So Spark needs no connector to the warehouse, copies no vector, and has no action that could run a task again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from orchard_jobs.contract.jobs import Source

Task = Callable[[int], str]


@dataclass(frozen=True)
class Workers:
    """What a job's tasks run on.

    Attributes:
        spark: the session; it may be a Spark Connect one.
        source: `fetch` where Spark's Python workers have a network; with `spark` they have none.
        spark_tasks: how many tasks each of Spark's stages has finished, as far as Spark has told.
        own_tasks: one for each task that this process has called itself.
    """

    spark: SparkSession
    source: Source = "fetch"
    spark_tasks: dict[int, int] = field(default_factory=dict, compare=False)
    own_tasks: list[int] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        take_progress: Any = self._take_progress
        with suppress(Exception):  # only a session of Spark Connect takes one, from 4.0 on
            self.spark.registerProgressHandler(take_progress)

    def _take_progress(self, stages: Iterable[Any] | None, inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        self.spark_tasks.update({stage.stage_id: stage.num_completed_tasks for stage in stages or ()})

    def finished_tasks(self) -> object:
        """Return what changes whenever a task has finished."""
        with suppress(Exception):  # Spark Connect has no context, and a platform may deny it: the images are counted all the same
            tracker = self.spark.sparkContext.statusTracker()
            found = ((stage, tracker.getStageInfo(stage)) for stage in tracker.getActiveStageIds())
            self.spark_tasks.update({stage: info.numCompletedTasks for stage, info in found if info})
        return self.spark_tasks.copy(), len(self.own_tasks)

    def cancel(self) -> None:
        """Have Spark give up all that it was asked for."""
        for cancel in (lambda: self.spark.interruptAll(), lambda: self.spark.sparkContext.cancelAllJobs()):
            with suppress(Exception):  # a session has one of them or both
                cancel()

    @property
    def job_id(self) -> str:
        """The id that Spark has for this job; empty where the platform keeps it to itself (Databricks serverless)."""
        try:
            return self.spark.conf.get("spark.app.id", "") or ""
        except PySparkException:
            return ""

    def run(self, count: int, task: Task, at_most: int | None = None) -> list[str]:
        """Call a task with each number below `count`; return its texts in the order of the numbers.

        Where the workers have no network this process calls it: to copy and to project costs little beside an image.

        Args:
            count: how many numbers there are.
            task: can be pickled; called again with a number whose worker died.
            at_most: the most Spark tasks; each takes several numbers, one after the other. None: one each.
        """
        if self.source == "spark":
            return [self._call_here(task, number) for number in range(count)]
        if count == 0:
            return []
        numbers = self.spark.range(0, count, 1, min(count, at_most or count))
        rows = numbers.mapInArrow(partial(_call, task=task), "number BIGINT, text STRING").collect()
        return [row["text"] for row in sorted(rows, key=lambda row: int(row["number"]))]

    def _call_here(self, task: Task, number: int) -> str:
        text = task(number)
        self.own_tasks.append(number)
        return text


def _call(batches: Iterator[pa.RecordBatch], task: Task) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pydict({"number": [number], "text": [task(number)]})
