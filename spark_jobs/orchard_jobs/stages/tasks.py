"""Numbered tasks: Spark hands out numbers and brings back what each task told; what a task reads and writes is the warehouse's.

So Spark needs no connector to the warehouse, takes no vector apart, and runs nothing twice for another action.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
from pyspark.sql import SparkSession

Work = Callable[[int], str]


def run_tasks(spark: SparkSession, count: int, work: Work, at_most: int | None = None) -> list[str]:
    """Call `work` in the workers with each number below `count`; return what it told, in the numbers' order.

    Args:
        spark: the session; it may be a Spark Connect one.
        count: how many numbers there are.
        work: can be pickled; a number that is worked on again, because its worker died, tells its own.
        at_most: the most Spark tasks; each takes several numbers, one after the other. None: one each.
    """
    if count == 0:
        return []
    numbers = spark.range(0, count, 1, min(count, at_most or count))
    rows = numbers.mapInArrow(partial(_each, work=work), "number BIGINT, told STRING").collect()
    return [row["told"] for row in sorted(rows, key=lambda row: int(row["number"]))]


def _each(batches: Iterator[pa.RecordBatch], work: Work) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pydict({"number": [number], "told": [work(number)]})
