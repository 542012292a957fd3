"""Numbered tasks: each is called with its number, and tells a line of text; what a task reads and writes is the warehouse's.

So Spark needs no connector to the warehouse, takes no vector apart, and runs nothing twice for another action.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from orchard_jobs.contract.jobs import Source

Work = Callable[[int], str]


@dataclass(frozen=True)
class Workers:
    """What a job's tasks run on.

    Attributes:
        spark: the session; it may be a Spark Connect one.
        source: `fetch` where Spark's Python workers have a network; with `spark` they have none.
    """

    spark: SparkSession
    source: Source = "fetch"

    @property
    def job_id(self) -> str:
        """The id that Spark has for this job; empty where the platform keeps it to itself (Databricks serverless)."""
        try:
            return self.spark.conf.get("spark.app.id", "") or ""
        except PySparkException:
            return ""

    def run(self, count: int, work: Work, at_most: int | None = None) -> list[str]:
        """Call `work` with each number below `count`; return what it told, in the numbers' order.

        Where the workers have no network, this process does it: what remains is to copy and to project, little beside an image.

        Args:
            count: how many numbers there are.
            work: can be pickled; a number that is worked on again, because its worker died, tells its own.
            at_most: the most Spark tasks; each takes several numbers, one after the other. None: one each.
        """
        if self.source == "spark":
            return [work(number) for number in range(count)]
        if count == 0:
            return []
        numbers = self.spark.range(0, count, 1, min(count, at_most or count))
        rows = numbers.mapInArrow(partial(_each, work=work), "number BIGINT, told STRING").collect()
        return [row["told"] for row in sorted(rows, key=lambda row: int(row["number"]))]


def _each(batches: Iterator[pa.RecordBatch], work: Work) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pydict({"number": [number], "told": [work(number)]})
