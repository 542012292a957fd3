"""Spark's workers, and the numbered tasks that they run. A task gets its index and returns a text; all else is in the warehouse.

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
        """Call a task with each index below `count`; return its texts in the order of the indexes.

        Where the workers have no network this process calls it: to copy and to project costs little beside an image.

        Args:
            count: how many indexes there are.
            task: can be pickled; called again with an index whose worker died.
            at_most: the most Spark tasks; each takes several indexes, one after the other. None: one each.
        """
        if self.source == "spark":
            return [self._call_here(task, index) for index in range(count)]
        if count == 0:
            return []
        indexes = self.spark.range(0, count, 1, min(count, at_most or count))
        rows = indexes.mapInArrow(partial(_call, task=task), "index BIGINT, text STRING").collect()
        return [row["text"] for row in sorted(rows, key=lambda row: int(row["index"]))]

    def _call_here(self, task: Task, index: int) -> str:
        text = task(index)
        self.own_tasks.append(index)
        return text


def _call(batches: Iterator[pa.RecordBatch], task: Task) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for index in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pydict({"index": [index], "text": [task(index)]})
