"""What every stage does with the files it writes: choose a fresh folder, write, and account for each file.

The Python workers write the tables' files, not Spark: the JVM would handle a list of 1,280 floats float by float. A worker that
has the rows in memory can also sum them up on the way.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchard_jobs import __version__
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.digests import staged_name
from orchard_jobs.contract.jobs import JobReport, ProjectionPlan, Stage, StagedFile, StagedPartition
from orchard_jobs.contract.layout import ProgressPath, ScratchPath, random_element, report_path, staged_path
from orchard_jobs.contract.locations import below
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.parquet import pack
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

OnFile = Callable[[Warehouse, pa.Table, str], None]


@dataclass(frozen=True)
class OwnPaths:
    """The paths at which a job writes for a piece of work; can be pickled to its workers.

    Attributes:
        work: the work digest.
        process: drawn by the job's driver, so that no two jobs share a folder.
    """

    work: str
    process: str = field(default_factory=random_element)

    def scratch(self, kind: str, name: str) -> str:
        """Return the path of a scratch file, in the folder of its kind."""
        return str(ScratchPath(self.work, self.process, below(kind, name)))

    def new_progress(self) -> str:
        """Return a path for a running count that nobody else writes."""
        return str(ProgressPath(self.work, self.process, f"{random_element()}.json"))

    def staged(self, table: Table, partition: tuple[str, ...], sha256: str) -> str:
        """Return the path for a file of a table's partition, which only another try at the same content writes, too."""
        return staged_path(table, partition, self.work, self.process, staged_name(sha256))


@dataclass(frozen=True)
class StagedWriter:
    """Writes files of one table partition, in whichever process has the rows; can be pickled to a worker."""

    warehouse: Warehouse
    table: Table
    partition: tuple[str, ...]
    paths: OwnPaths

    def write(self, rows: pa.Table) -> StagedFile:
        """Write one file of rows, whose columns may be in any order, and account for it."""
        schema = arrow_schema(self.table)
        found = rows.select(schema.names).cast(schema)
        # Numbers that seldom recur: a dictionary of them costs time and saves no byte.
        content = pack(found, use_dictionary=[field.name for field in schema if not pa.types.is_list(field.type)])
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.paths.staged(self.table, self.partition, sha256)
        self.warehouse.create(path, content)
        return StagedFile(path, len(content), found.num_rows, sha256)


@dataclass(frozen=True)
class VersionWriter:
    """Writes files of a batch version's rows, sorted by URI; can be pickled to a worker.

    Attributes:
        writer: writes the files.
        manifest_digest: the version's; each row carries it, and the jobs' version.
        on_file: called with the warehouse, the rows and the path of each file.
    """

    writer: StagedWriter
    manifest_digest: str
    on_file: OnFile | None = None

    @property
    def warehouse(self) -> Warehouse:
        """Where everything lies."""
        return self.writer.warehouse

    def in_warehouse(self, warehouse: Warehouse) -> "VersionWriter":
        """Return the writer of the same files in another warehouse."""
        return replace(self, writer=replace(self.writer, warehouse=warehouse))

    def write(self, rows: pa.Table) -> tuple[StagedFile, ...]:
        """Write one file of rows, whatever version they carried before; no file without rows."""
        if not rows.num_rows:
            return ()
        stamps = {"manifest_digest": self.manifest_digest, "jobs_version": __version__}
        rows = rows.drop_columns([name for name in stamps if name in rows.column_names]).sort_by("image_uri")
        for name, value in stamps.items():
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        file = self.writer.write(rows)
        if self.on_file is not None:
            self.on_file(self.warehouse, rows, file.path)
        return (file,)


@dataclass
class Staging:
    """Where a job writes, and its clock.

    Attributes:
        warehouse: where everything is written.
        paths: its own.
        seconds: wall seconds by step.
    """

    warehouse: Warehouse
    paths: OwnPaths
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the block's wall seconds to a step."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - start, 3)

    def writer(self, table: Table, partition: tuple[str, ...]) -> StagedWriter:
        """Return what writes a table partition's files."""
        return StagedWriter(self.warehouse, table, partition, self.paths)

    def report(
        self, stage: Stage, planned: ManifestHead | ProjectionPlan, job_id: str, partitions: tuple[StagedPartition, ...]
    ) -> JobReport:
        """Return the report of what was staged for a manifest or a plan, without what the stage counts; not yet written."""
        backbone = planned.backbone if isinstance(planned, ProjectionPlan) else planned.backbone.id
        return JobReport(self.paths.work, stage, planned.digest, backbone, __version__, job_id, partitions, seconds=self.seconds)


def files_to_json(files: tuple[StagedFile, ...]) -> str:
    """Return the files that a task has written as the text that it returns."""
    return json.dumps([asdict(file) for file in files])


def files_from_json(texts: list[str]) -> tuple[StagedFile, ...]:
    """Return the files in the texts of `files_to_json`, in order."""
    return tuple(StagedFile(**file) for text in texts for file in json.loads(text))


def finish(warehouse: Warehouse, report: JobReport) -> JobReport:
    """Create the report and return it, or the one that another process finished first: that one counts."""
    path = report_path(report.work)
    if warehouse.create(path, report.to_json().encode()):
        return report
    return JobReport.from_json(warehouse.read(path))


def vectors(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a list column without nulls as float32 [rows, length]; all lists have one length."""
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(column), -1)


def lists(rows: NDArray[Any]) -> pa.Array:
    """Return rows [n, length], length > 0, as a list column of their own float type: what `vectors` reads."""
    values = pa.array(np.ascontiguousarray(rows).ravel())
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1]).cast(pa.list_(values.type))
