"""What every stage does with the files it writes: choose a fresh folder, write, and account for each file."""

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import JobReport, StagedFile, StagedPartition
from orchard_jobs.contract.layout import random_element, report_path, scratch_folder, staged_folder
from orchard_jobs.storage import Warehouse

ROWS_PER_FILE = 10_000
# One task writes one file, so a small version is cut for some cores to share.
_FEWEST_FILES, _ROWS_FOR_A_TASK = 4, 500


@dataclass
class Staging:
    """The fresh folders of one process, and its clock.

    Attributes:
        warehouse: where everything is written.
        work: the work digest.
        element: drawn by this process, so that no two processes share a folder.
        seconds: wall seconds by step.
    """

    warehouse: Warehouse
    work: str
    element: str = field(default_factory=random_element)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the block's wall seconds to a step."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - start, 3)

    def scratch_uri(self, name: str) -> str:
        """Return the URI of a folder for intermediate rows."""
        return self.warehouse.uri_of(f"{scratch_folder(self.work, self.element)}/{name}")

    def scratch_files(self, name: str) -> list[str]:
        """Return the Parquet files of a folder for intermediate rows; unlike what is staged they are not hashed."""
        folder = f"{scratch_folder(self.work, self.element)}/{name}"
        return sorted(path for path, _ in self.warehouse.list(folder) if path.endswith(".parquet"))

    def write(self, rows: DataFrame, table: Table, partition: tuple[str, ...], count: int, sort_by: str) -> StagedPartition:
        """Write a table partition's next version in files, each sorted, of at most about 10,000 rows, and account for them."""
        folder = staged_folder(table, partition, self.work, self.element)
        if count == 0:
            return StagedPartition(table.name, partition, ())
        files = max(math.ceil(count / ROWS_PER_FILE), min(_FEWEST_FILES, math.ceil(count / _ROWS_FOR_A_TASK)))
        # Not by range: Spark would compute the rows twice, once to find the ranges.
        spread = rows.repartition(files, sort_by)
        lists = [f"{column.name}.list.element" for column in table.columns if column.type.startswith("list<")]
        options = without_dictionary(*lists)
        spread.sortWithinPartitions(sort_by).write.options(**options).parquet(self.warehouse.uri_of(folder))
        return StagedPartition(table.name, partition, self.account(folder))

    def write_arrow(self, rows: pa.Table, table: Table, partition: tuple[str, ...]) -> StagedPartition:
        """Write one small file from the driver, and account for it."""
        folder = staged_folder(table, partition, self.work, self.element)
        packed = io.BytesIO()
        pq.write_table(rows, packed, use_dictionary=False)
        self.warehouse.create(f"{folder}/part-00000.parquet", packed.getvalue())
        return StagedPartition(table.name, partition, self.account(folder))

    def account(self, folder: str) -> tuple[StagedFile, ...]:
        """Return path, bytes, rows and SHA-256 of each Parquet file with rows that this process wrote to a folder."""
        found = []
        for path, size_bytes in sorted(self.warehouse.list(folder)):
            if not path.endswith(".parquet"):
                continue
            rows = pq.ParquetFile(self.warehouse.open(path)).metadata.num_rows
            if rows:
                found.append(StagedFile(path, size_bytes, rows, self.warehouse.sha256(path)))
        return tuple(found)


def finish(warehouse: Warehouse, report: JobReport) -> JobReport:
    """Create the report and return it, or the one that another process finished first: that one counts."""
    path = report_path(report.work)
    if warehouse.create(path, report.to_json().encode()):
        return report
    return JobReport.from_json(warehouse.read(path))


def read_files(spark: SparkSession, warehouse: Warehouse, paths: tuple[str, ...]) -> DataFrame:
    """Return the rows of exactly these files, without partition columns."""
    return spark.read.parquet(*(warehouse.uri_of(path) for path in paths))


def without_dictionary(*columns: str) -> dict[str, str]:
    """Return the writer's options for columns of numbers that seldom recur: a dictionary costs time and saves no byte."""
    return {f"parquet.enable.dictionary#{column}": "false" for column in columns}


def vectors(column: pa.Array) -> NDArray[np.float32]:
    """Return a list<float32> column without nulls as float32 [rows, length]; all lists have one length."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(column), -1)


def lists(rows: NDArray[Any]) -> pa.Array:
    """Return rows [n, length], length > 0, as a list column of their own float type: what `vectors` reads."""
    values = pa.array(np.ascontiguousarray(rows).ravel())
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1]).cast(pa.list_(values.type))
