"""Staged files: whether they are the report's, and a stream of their rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from arro3.io import read_parquet

from orchard_jobs.audit.verdict import Findings
from orchard_jobs.contract.columns import TABLES, Table
from orchard_jobs.contract.jobs import JobReport, StagedFile, StagedPartition
from orchard_jobs.contract.layout import StagedPath, parse, partition_folder
from orchard_jobs.errors import AuditError, DamagedFileError
from orchard_jobs.parquet import open_parquet
from orchard_jobs.schemas import schema_differences
from orchard_jobs.storage import Warehouse

TABLE_NAMED = {table.name: table for table in TABLES}
REPORT_CHECK = {
    "report": "the reports are of this work and stage each table partition once, in the work's own folder",
}
FILE_CHECKS = {
    "files": "each file of the report is there with the report's size and SHA-256",
    "schema": "each file is Parquet with the table's columns and types",
    "rows": "each file holds as many rows as the report says",
}
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Rows:
    """Some rows of one staged file."""

    path: str
    table: Table
    batch: pa.RecordBatch

    def column(self, name: str) -> pa.Array:
        """Return one column."""
        return self.batch.column(name)

    def values(self, name: str) -> list[str | None]:
        """Return one string column as Python values."""
        found: list[str | None] = self.batch.column(name).to_pylist()
        return found

    @cached_property
    def names(self) -> list[str]:
        """How an example names each row: by its image_uri, or by its number where the table or the row has no image_uri."""
        uris = self.values("image_uri") if "image_uri" in self.table.column_names else [None] * self.batch.num_rows
        return [uri or f"row {i}" for i, uri in enumerate(uris)]


def read_rows(warehouse: Warehouse, table: Table, path: str) -> Iterator[Rows]:
    """Yield a file's rows, 1,024 at a time, holding no more of the file than these.

    By arrow-rs, which shares no code with what wrote the file: two readings of Parquet must agree before it is published.
    It checks no page's checksum, so `check_files` must have found the file's SHA-256 to be the report's.

    Raises:
        AuditError: the file cannot be decoded although its footer can.
    """
    try:
        for batch in pa.RecordBatchReader.from_stream(read_parquet(warehouse.open(path), batch_size=_ROWS_AT_ONCE)):
            yield Rows(path, table, batch)
    except BaseException as error:
        # arro3 raises plain Exceptions, and where a read broke off, Rust's panic, which is none.
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise AuditError(f"{warehouse.uri_of(path)} cannot be decoded, stage it again: {error}") from error


def read_columns(warehouse: Warehouse, table: Table, path: str, columns: tuple[str, ...]) -> Iterator[Rows]:
    """Yield some columns of a published file's rows, as `read_rows` does, reading no other."""
    with open_parquet(warehouse, path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
            yield Rows(path, table, batch)


def check_files(warehouse: Warehouse, report: JobReport, findings: Findings) -> None:
    """Judge `files`, `schema` and `rows` of every file that a report names."""
    for partition in report.partitions:
        for file in partition.files:
            if differences := _file_differences(warehouse, file):
                findings.extend("files", file.path, differences)
            else:
                _check_footer(warehouse, TABLE_NAMED[partition.table], file, findings)


def _file_differences(warehouse: Warehouse, file: StagedFile) -> list[str]:
    size = warehouse.size(file.path)
    if size is None:
        return ["is not there"]
    if size != file.size_bytes:
        return [f"has {size} bytes, not {file.size_bytes}"]
    sha256 = warehouse.sha256(file.path)
    return [f"has SHA-256 {sha256}, not {file.sha256}"] if sha256 != file.sha256 else []


def _check_footer(warehouse: Warehouse, table: Table, file: StagedFile, findings: Findings) -> None:
    try:
        with open_parquet(warehouse, file.path) as opened:
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
    except DamagedFileError as error:
        findings.add("schema", file.path, error.fault)
        return
    findings.extend("schema", file.path, schema_differences(schema, table))
    if rows != file.rows:
        findings.add("rows", file.path, f"holds {rows} rows, not {file.rows}")


def report_differences(
    report: JobReport, stage: str, input_digest: str, backbone: str, wanted: Sequence[tuple[str, tuple[str, ...]]]
) -> Iterator[str]:
    """Yield what keeps a report from being of this work.

    Args:
        report: the report.
        stage: the stage that should have written it.
        input_digest: the manifest's or the plan's digest.
        backbone: the backbone's id.
        wanted: (table, partition values) of each partition that must be staged, once.
    """
    expected = {"stage": stage, "input_digest": input_digest, "backbone": backbone}
    for name, value in expected.items():
        if getattr(report, name) != value:
            yield f"{stage}: {name} is {getattr(report, name)}, not {value}"
    found = [(partition.table, partition.partition) for partition in report.partitions]
    if sorted(found) != sorted(wanted):
        yield f"{stage}: stages {sorted(found)}, not {sorted(wanted)}"
    else:
        yield from (text for partition in report.partitions for text in _path_differences(report, partition))
    paths = [file.path for partition in report.partitions for file in partition.files]
    yield from (f"{stage}: {path} is named more than once" for path in sorted(set(paths)) if paths.count(path) > 1)


def _path_differences(report: JobReport, partition: StagedPartition) -> Iterator[str]:
    wanted = (TABLE_NAMED[partition.table], partition.partition, report.work)
    for file in partition.files:
        found = parse(file.path)
        if not isinstance(found, StagedPath) or (found.table, found.partition, found.work) != wanted:
            yield f"{file.path} is not a file of work {report.work} in {partition_folder(*wanted[:2])}"
