"""What `reduce` and `project` share: features files x PCA models -> pca_features files, and what each model keeps of each batch.

Features lie in sorted files of bounded size, and a row's coordinates depend on that row alone: so each features file becomes one
pca_features file, sorted alike, in whichever worker reads it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Row, SparkSession

from orchard_jobs import __version__
from orchard_jobs.contract.columns import PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, StagedFile, StagedPartition
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.pca.basis import read_basis
from orchard_jobs.pca.moments import Floats
from orchard_jobs.pca.project import VarianceTally, project
from orchard_jobs.stages.staging import FILE_DDL, StagedWriter, Staging, lists, vectors
from orchard_jobs.storage import Warehouse

_COPIED = ("image_uri", "content_sha256", "label")
_TALLY_DDL = "n BIGINT, mean BINARY, total DOUBLE, kept DOUBLE"
_ROWS_AT_ONCE = 1024
# Enough tasks for a cluster; with more files, more in a task.
_TASKS, _FILES_PER_TASK = 64, 16


@dataclass(frozen=True)
class _File:
    """One features file to project: the model, the batch version that it belongs to, and what writes its rows."""

    path: str
    model: ModelReference
    batch: BatchVersion
    writer: StagedWriter


def project_batches(
    spark: SparkSession, staging: Staging, pairs: Sequence[tuple[ModelReference, BatchVersion]]
) -> tuple[tuple[StagedPartition, ...], tuple[Captured, ...]]:
    """Stage the pca_features of batch versions by models, in one Spark job.

    Returns:
        A partition and what the model keeps, for each pair in order.

    Raises:
        JobError: a model's file is not there, or holds another model.
    """
    for model in dict.fromkeys(model for model, _ in pairs):
        _basis(staging.warehouse, model)
    files = tuple(
        _File(path, model, batch, staging.writer(PCA_FEATURES, (model.model_id, batch.batch_id)))
        for model, batch in pairs
        for path in batch.files
    )
    told = iter(_run(spark, files))
    of_pairs = [(model, batch, list(islice(told, len(batch.files)))) for model, batch in pairs]
    return tuple(_partition(*one) for one in of_pairs), tuple(_captured(staging.warehouse, *one) for one in of_pairs)


def _run(spark: SparkSession, files: tuple[_File, ...]) -> list[Row]:
    if not files:
        return []
    tasks = min(len(files), max(_TASKS, len(files) // _FILES_PER_TASK))
    worker = partial(_project_files, files=files)
    rows = spark.range(0, len(files), 1, tasks).mapInArrow(worker, f"number BIGINT, {FILE_DDL}, {_TALLY_DDL}").collect()
    return sorted(rows, key=lambda row: row["number"])


def _partition(model: ModelReference, batch: BatchVersion, told: list[Row]) -> StagedPartition:
    files = tuple(StagedFile(row["path"], row["size_bytes"], row["rows"], row["sha256"]) for row in told)
    return StagedPartition(PCA_FEATURES.name, (model.model_id, batch.batch_id), files)


def _captured(warehouse: Warehouse, model: ModelReference, batch: BatchVersion, told: list[Row]) -> Captured:
    mean, components = _basis(warehouse, model)
    tally = VarianceTally.empty(mean, components)
    for row in told:
        of_file = VarianceTally(components, row["n"], np.frombuffer(row["mean"]), row["total"], row["kept"])
        tally = tally.merge(of_file)
    return tally.captured(model.model_id, batch.batch_id, batch.manifest_digest)


def _project_files(batches: Iterator[pa.RecordBatch], files: tuple[_File, ...]) -> Iterator[pa.RecordBatch]:
    """Project the files of one worker task, given by number, and yield a row for each."""
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pylist([{"number": number} | _project_file(files[number])])


def _project_file(file: _File) -> dict[str, Any]:
    warehouse = file.writer.warehouse
    basis = _basis(warehouse, file.model)
    tally = VarianceTally.empty(*basis)
    projected = []
    with pq.ParquetFile(warehouse.open(file.path)) as opened:
        for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=[*_COPIED, "features"]):
            features = vectors(batch.column("features"))
            tally = tally.add(features)
            columns = [batch.column(name) for name in _COPIED]
            coordinates = lists(project(features, *basis).astype(np.float32))
            projected.append(pa.Table.from_arrays([*columns, coordinates], [*_COPIED, "pca_features"]))
    rows = pa.concat_tables(projected)
    for name, value in (("manifest_digest", file.batch.manifest_digest), ("jobs_version", __version__)):
        rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
    of_tally = {"n": tally.n, "mean": tally.mean.tobytes(), "total": tally.total, "kept": tally.kept}
    return asdict(file.writer.write(rows)) | of_tally


@lru_cache(maxsize=4)
def _basis(warehouse: Warehouse, model: ModelReference) -> tuple[Floats, Floats]:
    """Return a model's mean [d] and components [k, d], read once a process."""
    return read_basis(warehouse, model)
