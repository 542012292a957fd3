"""What every stage does with the files it writes: choose a fresh folder, write, and account for each file.

The tables' files are written by the Python workers, not by Spark's writer: a list of 1,280 floats goes through the JVM float by
float, and a worker that has the rows at hand can sum them up on the way. On the way a vector is its bytes.
"""

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from orchard_jobs.audit.schemas import arrow_schema
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import JobReport, StagedFile, StagedPartition
from orchard_jobs.contract.layout import random_element, report_path, scratch_folder, staged_folder
from orchard_jobs.storage import Warehouse

ROWS_PER_FILE = 10_000
# One task writes one file, so a small version is cut for some cores to share.
_FEWEST_FILES, _ROWS_FOR_A_TASK = 4, 500


OnFile = Callable[[pa.Table, str], None]
FILE_DDL = "path STRING, size_bytes BIGINT, rows BIGINT, sha256 STRING"


@dataclass(frozen=True)
class StagedWriter:
    """Writes files of one table partition, in whichever process has the rows; can be pickled to a worker."""

    warehouse: Warehouse
    table: Table
    folder: str

    def write(self, rows: pa.Table) -> StagedFile:
        """Write one file of rows whose vectors may be bytes, and account for it. No other process draws its name."""
        schema = arrow_schema(self.table)
        found = pa.Table.from_arrays([_column(rows, name) for name in schema.names], names=schema.names).cast(schema)
        packed = io.BytesIO()
        plain = [field.name for field in schema if not pa.types.is_list(field.type)]
        # Numbers that seldom recur: a dictionary of them costs time and saves no byte.
        pq.write_table(found, packed, use_dictionary=plain, row_group_size=max(1, found.num_rows))
        path, content = f"{self.folder}/part-{random_element()}.parquet", packed.getvalue()
        self.warehouse.create(path, content)
        return StagedFile(path, len(content), found.num_rows, hashlib.sha256(content).hexdigest())


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    if not pa.types.is_binary(column.type):
        return column
    return lists(vectors(column)) if len(column) else pa.array([], pa.list_(pa.float32()))


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

    def scratch_path(self, name: str) -> str:
        """Return a folder for intermediate files."""
        return f"{scratch_folder(self.work, self.element)}/{name}"

    def writer(self, table: Table, partition: tuple[str, ...]) -> StagedWriter:
        """Return what writes a table partition's files in this process's own folder."""
        return StagedWriter(self.warehouse, table, staged_folder(table, partition, self.work, self.element))

    def write(
        self,
        rows: DataFrame,
        table: Table,
        partition: tuple[str, ...],
        count: int,
        sort_by: str,
        on_file: OnFile | None = None,
    ) -> tuple[StagedFile, ...]:
        """Write rows of a table partition's next version in files, each sorted, of at most about 10,000 rows.

        Args:
            rows: the rows; a vector may be its bytes.
            table: the table.
            partition: the values of its partition columns.
            count: the number of rows.
            sort_by: a column; rows that are equal in it share a file.
            on_file: called in the worker with the rows and the path of each file.
        """
        files = max(math.ceil(count / ROWS_PER_FILE), min(_FEWEST_FILES, math.ceil(count / _ROWS_FOR_A_TASK)))
        # Not by range: Spark would compute the rows twice, once to find the ranges.
        spread = rows.repartition(files, sort_by).sortWithinPartitions(sort_by)
        worker = partial(_write_file, writer=self.writer(table, partition), on_file=on_file)
        written = [StagedFile(**row.asDict()) for row in spread.mapInArrow(worker, FILE_DDL).collect()]
        return tuple(sorted(written, key=lambda file: file.path))

    def write_arrow(self, rows: pa.Table, table: Table, partition: tuple[str, ...]) -> StagedPartition:
        """Write one small file from the driver, and account for it."""
        return StagedPartition(table.name, partition, (self.writer(table, partition).write(rows),))


def _write_file(batches: Iterator[pa.RecordBatch], writer: StagedWriter, on_file: OnFile | None) -> Iterator[pa.RecordBatch]:
    held = [batch for batch in batches if batch.num_rows]
    if not held:
        return
    rows = pa.Table.from_batches(held)
    file = writer.write(rows)
    if on_file is not None:
        on_file(rows, file.path)
    yield pa.RecordBatch.from_pylist([asdict(file)])


def finish(warehouse: Warehouse, report: JobReport) -> JobReport:
    """Create the report and return it, or the one that another process finished first: that one counts."""
    path = report_path(report.work)
    if warehouse.create(path, report.to_json().encode()):
        return report
    return JobReport.from_json(warehouse.read(path))


def read_files(spark: SparkSession, warehouse: Warehouse, paths: tuple[str, ...], table: Table) -> DataFrame:
    """Return the rows of exactly these files of a table, without partition columns."""
    return spark.read.schema(table.spark_ddl).parquet(*(warehouse.uri_of(path) for path in paths))


def vectors(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a column of vectors of one length, without nulls, as float32 [rows, length]: lists, or their bytes."""
    if pa.types.is_binary(column.type):
        return np.frombuffer(b"".join(column.to_pylist()), np.float32).reshape(len(column), -1)
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(column), -1)


def lists(rows: NDArray[Any]) -> pa.Array:
    """Return rows [n, length], length > 0, as a list column of their own float type: what `vectors` reads."""
    values = pa.array(np.ascontiguousarray(rows).ravel())
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1]).cast(pa.list_(values.type))
