"""Features x PCA models -> pca_features, and what each model keeps of each batch's variance."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from orchard_jobs.contract.columns import PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, StagedPartition
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.pca.basis import read_basis
from orchard_jobs.pca.coordinates import VarianceTally, project
from orchard_jobs.scatter import Floats
from orchard_jobs.stages.model_rows import IDENTITY, Kind, StagedRows, Wanted, stage_rows
from orchard_jobs.stages.staging import Staging, lists, vectors
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def project_batches(
    workers: Workers, staging: Staging, pairs: Sequence[tuple[ModelReference, BatchVersion]]
) -> tuple[tuple[StagedPartition, ...], tuple[Captured, ...]]:
    """Stage the pca_features of batch versions by models, in one Spark job.

    Returns:
        A partition and what the model keeps, for each pair in order.

    Raises:
        JobError: a model's file is not there, or holds another model.
    """
    staged = stage_rows(workers, staging, [Wanted(PROJECTION, model, batch) for model, batch in pairs])
    return tuple(one.partition for one in staged), tuple(captured(staging.warehouse, one) for one in staged)


def captured(warehouse: Warehouse, staged: StagedRows) -> Captured:
    """Return what a model keeps of the variance of staged rows."""
    model, batch = staged.wanted.model, staged.wanted.batch
    mean, components = _basis(warehouse, model)
    tally = VarianceTally.empty(mean, components)
    for one in staged.tallies:
        mean = np.frombuffer(b64decode(one["mean"]))
        tally = tally.merge(VarianceTally(components, one["n"], mean, one["total"], one["kept"]))
    return tally.captured(model.model_id, batch.batch_id, batch.manifest_digest)


class _Projector:
    """A basis at work on the rows of one features file."""

    def __init__(self, basis: tuple[Floats, Floats]) -> None:
        self._basis, self._tally = basis, VarianceTally.empty(*basis)

    def rows_of(self, features: pa.RecordBatch) -> pa.Table:
        matrix = vectors(features.column("features"))
        self._tally = self._tally.add(matrix)
        coordinates = lists(project(matrix, *self._basis).astype(np.float32))
        return pa.Table.from_arrays([*map(features.column, IDENTITY), coordinates], [*IDENTITY, "pca_features"])

    def tally(self) -> dict[str, object]:
        tally = self._tally
        mean = b64encode(tally.mean.tobytes()).decode()
        return {"n": tally.n, "mean": mean, "total": tally.total, "kept": tally.kept}


def _projector(warehouse: Warehouse, model: ModelReference, batch: BatchVersion) -> _Projector:
    return _Projector(_basis(warehouse, model))


@lru_cache(maxsize=4)
def _basis(warehouse: Warehouse, model: ModelReference) -> tuple[Floats, Floats]:
    """Return a model's mean [d] and components [k, d], read once a process."""
    return read_basis(warehouse, model)


PROJECTION = Kind(PCA_FEATURES, (*IDENTITY, "features"), _projector)
