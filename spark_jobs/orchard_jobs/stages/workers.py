"""Spark's workers, and the numbered tasks that they run. A task gets its number and returns a text; all else is in the warehouse.

So Spark needs no connector to the warehouse, copies no vector, and has no action that could run a task again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

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
        own_tasks: one for each task that this process has called itself.
    """

    spark: SparkSession
    source: Source = "fetch"
    own_tasks: list[int] = field(default_factory=list, compare=False)

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
