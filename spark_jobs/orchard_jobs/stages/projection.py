"""What `reduce` and `project` share: features files x PCA models -> pca_features files, and what each model keeps of each batch.

Features lie in sorted files of bounded size, and a row's coordinates depend on that row alone. So each features file becomes one
pca_features file in the same order, in whichever worker reads it.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from orchard_jobs.contract.columns import PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, StagedFile, StagedPartition
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.parquet import open_parquet
from orchard_jobs.pca.basis import read_basis
from orchard_jobs.pca.coordinates import VarianceTally, project
from orchard_jobs.scatter import Floats
from orchard_jobs.stages.staging import Staging, VersionWriter, lists, vectors
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

_COPIED = ("image_uri", "content_sha256", "label")
_ROWS_AT_ONCE = 1024
# Enough tasks for a cluster; with more files, more in a task.
_TASKS, _FILES_PER_TASK = 64, 16


@dataclass(frozen=True)
class _File:
    """One features file to project: by which model, and what writes its rows."""

    path: str
    model: ModelReference
    writer: VersionWriter


def project_batches(
    workers: Workers, staging: Staging, pairs: Sequence[tuple[ModelReference, BatchVersion]]
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
        _File(path, model, VersionWriter(staging.writer(PCA_FEATURES, (model.model_id, batch.batch_id)), batch.manifest_digest))
        for model, batch in pairs
        for path in batch.files
    )
    results = iter(_run(workers, files))
    of_pairs = [(model, batch, list(islice(results, len(batch.files)))) for model, batch in pairs]
    return tuple(_partition(*one) for one in of_pairs), tuple(_captured(staging.warehouse, *one) for one in of_pairs)


def _run(workers: Workers, files: tuple[_File, ...]) -> list[dict[str, Any]]:
    at_most = max(_TASKS, len(files) // _FILES_PER_TASK)
    return [json.loads(text) for text in workers.run(len(files), partial(_project_file, files=files), at_most)]


def _partition(model: ModelReference, batch: BatchVersion, results: list[dict[str, Any]]) -> StagedPartition:
    files = tuple(StagedFile(**one["file"]) for one in results)
    return StagedPartition(PCA_FEATURES.name, (model.model_id, batch.batch_id), files)


def _captured(warehouse: Warehouse, model: ModelReference, batch: BatchVersion, results: list[dict[str, Any]]) -> Captured:
    mean, components = _basis(warehouse, model)
    tally = VarianceTally.empty(mean, components)
    for one in results:
        mean = np.frombuffer(b64decode(one["mean"]))
        tally = tally.merge(VarianceTally(components, one["n"], mean, one["total"], one["kept"]))
    return tally.captured(model.model_id, batch.batch_id, batch.manifest_digest)


def _project_file(index: int, files: tuple[_File, ...]) -> str:
    """Project one file; return the file written and what the model keeps of its rows as JSON."""
    file = files[index]
    warehouse = file.writer.warehouse
    basis = _basis(warehouse, file.model)
    tally = VarianceTally.empty(*basis)
    projected = []
    with open_parquet(warehouse, file.path, is_whole=True) as opened:
        for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=[*_COPIED, "features"]):
            features = vectors(batch.column("features"))
            tally = tally.add(features)
            columns = [batch.column(name) for name in _COPIED]
            coordinates = lists(project(features, *basis).astype(np.float32))
            projected.append(pa.Table.from_arrays([*columns, coordinates], [*_COPIED, "pca_features"]))
    (written,) = file.writer.write(pa.concat_tables(projected))
    mean = b64encode(tally.mean.tobytes()).decode()
    return json.dumps({"file": asdict(written), "n": tally.n, "mean": mean, "total": tally.total, "kept": tally.kept})


@lru_cache(maxsize=4)
def _basis(warehouse: Warehouse, model: ModelReference) -> tuple[Floats, Floats]:
    """Return a model's mean [d] and components [k, d], read once a process."""
    return read_basis(warehouse, model)
