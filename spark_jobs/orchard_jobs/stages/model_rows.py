"""Features files x models -> each model's rows, by one Spark operation that reads each features file once.

Features lie in sorted files of bounded size, and what a model makes of a row depends on that row alone. So each features file
becomes one file of each model in the same order, in whichever worker reads it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import BatchVersion, StagedFile, StagedPartition
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.parquet import open_parquet
from orchard_jobs.stages.staging import Staging, VersionWriter
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

IDENTITY = ("image_uri", "content_sha256", "label")
_ROWS_AT_ONCE = 1024
# Enough tasks for a cluster; with more files, more in a task.
_TASKS, _FILES_PER_TASK = 64, 16


class Applied(Protocol):
    """A model at work on the rows of one features file."""

    def rows_of(self, features: pa.RecordBatch) -> pa.Table:
        """Return the model's rows of some features rows, and add them to the tally."""

    def tally(self) -> dict[str, Any]:
        """Return what was counted of all rows, as JSON has it."""


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        table: what its rows go to, partitioned by model and batch.
        columns: what it reads of a features file.
        apply: puts a model to work on a file of a batch version; reads the model once a process.
    """

    table: Table
    columns: tuple[str, ...]
    apply: Callable[[Warehouse, ModelReference, BatchVersion], Applied]


@dataclass(frozen=True)
class Wanted:
    """A model whose rows of a batch version are wanted."""

    kind: Kind
    model: ModelReference
    batch: BatchVersion

    @property
    def partition(self) -> tuple[str, str]:
        """The values of the table's partition columns."""
        return self.model.model_id, self.batch.batch_id


@dataclass(frozen=True)
class StagedRows:
    """The staged rows of a model and a batch version, and the tally of each of their files."""

    wanted: Wanted
    partition: StagedPartition
    tallies: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _File:
    """One features file, and what is wanted of it, each with what writes it."""

    path: str
    outputs: tuple[tuple[Wanted, VersionWriter], ...]


def stage_rows(workers: Workers, staging: Staging, wanted: Sequence[Wanted]) -> tuple[StagedRows, ...]:
    """Stage the rows of models and batch versions, in one Spark job.

    Returns:
        What was staged for each of `wanted`, in order.

    Raises:
        JobError: a model's file is not there, or holds another model.
    """
    for kind, model, batch in {(one.kind, one.model): (one.kind, one.model, one.batch) for one in wanted}.values():
        kind.apply(staging.warehouse, model, batch)
    files = tuple(_files(staging, wanted))
    at_most = max(_TASKS, len(files) // _FILES_PER_TASK)
    results = [json.loads(text) for text in workers.run(len(files), partial(_apply, files=files), at_most)]
    found: dict[Wanted, list[dict[str, Any]]] = {one: [] for one in wanted}
    for file, of_file in zip(files, results, strict=True):
        for (one, _), result in zip(file.outputs, of_file, strict=True):
            found[one].append(result)
    return tuple(_staged(one, found[one]) for one in wanted)


def _files(staging: Staging, wanted: Sequence[Wanted]) -> list[_File]:
    files = []
    for batch in dict.fromkeys(one.batch for one in wanted):
        outputs = tuple(
            (one, VersionWriter(staging.writer(one.kind.table, one.partition), batch.manifest_digest))
            for one in wanted
            if one.batch == batch
        )
        files += [_File(path, outputs) for path in batch.files]
    return files


def _staged(wanted: Wanted, results: list[dict[str, Any]]) -> StagedRows:
    files = tuple(StagedFile(**one["file"]) for one in results)
    partition = StagedPartition(wanted.kind.table.name, wanted.partition, files)
    return StagedRows(wanted, partition, tuple(one["tally"] for one in results))


def _apply(number: int, files: tuple[_File, ...]) -> str:
    """Make all rows that are wanted of one features file; return each file written and its tally as JSON."""
    file = files[number]
    warehouse = file.outputs[0][1].warehouse
    applied = [one.kind.apply(warehouse, one.model, one.batch) for one, _ in file.outputs]
    made: list[list[pa.Table]] = [[] for _ in applied]
    columns = dict.fromkeys(name for one, _ in file.outputs for name in one.kind.columns)
    with open_parquet(warehouse, file.path, is_whole=True) as opened:
        for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            for own, model in zip(made, applied, strict=True):
                own.append(model.rows_of(batch))
    results = []
    for (_, writer), own, model in zip(file.outputs, made, applied, strict=True):
        (written,) = writer.write(pa.concat_tables(own))
        results.append({"file": asdict(written), "tally": model.tally()})
    return json.dumps(results)
