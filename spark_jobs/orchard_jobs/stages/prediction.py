"""Features x classifiers -> predictions, and how each classifier did on each batch."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import pyarrow as pa

from orchard_jobs.classifier.predict import Predictions, predict
from orchard_jobs.classifier.stored import StoredClassifier, read_classifier
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.evaluations import Cell, Evaluation, merge_cells
from orchard_jobs.contract.jobs import BatchVersion, StagedPartition
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.stages.model_rows import IDENTITY, Kind, StagedRows, Wanted, stage_rows
from orchard_jobs.stages.staging import Staging, vectors
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def predict_batches(
    workers: Workers, staging: Staging, pairs: Sequence[tuple[ModelReference, BatchVersion]]
) -> tuple[tuple[StagedPartition, ...], tuple[Evaluation, ...]]:
    """Stage the predictions of batch versions by classifiers, in one Spark job.

    Returns:
        A partition and how the classifier did, for each pair in order.

    Raises:
        JobError: a classifier's file is not there, or holds another classifier.
    """
    staged = stage_rows(workers, staging, [Wanted(PREDICTION, model, batch) for model, batch in pairs])
    return tuple(one.partition for one in staged), tuple(map(evaluation, staged))


def evaluation(staged: StagedRows) -> Evaluation:
    """Return how a classifier did on staged rows."""
    cells = merge_cells([Cell(**cell) for tally in staged.tallies for cell in tally["cells"]])
    return Evaluation(*staged.wanted.partition, staged.wanted.batch.manifest_digest, cells)


class _Predictor:
    """A classifier at work on the rows of one features file of a batch version."""

    def __init__(self, stored: StoredClassifier, batch: BatchVersion) -> None:
        self._stored, self._batch = stored, batch
        self._is_fitted_on = batch.batch_id in {batch_id for batch_id, _ in stored.sources}
        self._cells: list[Cell] = []

    def rows_of(self, features: pa.RecordBatch) -> pa.Table:
        found = predict(vectors(features.column("features")), self._stored)
        is_seen = [
            self._is_fitted_on or computed_in != self._batch.manifest_digest
            for computed_in in features.column("computed_in").to_pylist()
        ]
        self._count(found, features.column("label").to_pylist(), is_seen)
        columns = {name: features.column(name) for name in IDENTITY} | {
            "predicted": pa.array(found.names(0), pa.string()),
            "score": found.scores[:, 0],
            "second": pa.array(found.names(1), pa.string()),
            "second_score": found.scores[:, 1],
            "distance": found.distance,
            "is_known": found.is_known,
            "is_seen": pa.array(is_seen, pa.bool_()),
        }
        return pa.table(columns)

    def _count(self, found: Predictions, labels: list[str | None], is_seen: list[bool]) -> None:
        truth = [None if label is None else self._stored.class_of.get(label) for label in labels]
        rows = zip(truth, found.names(0), is_seen, found.is_among(truth), found.is_known, found.scores[:, 0], strict=True)
        new = [
            Cell(name, predicted, seen, 1, int(is_among), int(known), float(score))
            for name, predicted, seen, is_among, known, score in rows
        ]
        self._cells = list(merge_cells([*self._cells, *new]))

    def tally(self) -> dict[str, object]:
        return {"cells": [asdict(cell) for cell in self._cells]}


def _predictor(warehouse: Warehouse, model: ModelReference, batch: BatchVersion) -> _Predictor:
    return _Predictor(_stored(warehouse, model), batch)


@lru_cache(maxsize=2)
def _stored(warehouse: Warehouse, model: ModelReference) -> StoredClassifier:
    """Return a classifier, read once a process."""
    return read_classifier(warehouse, model)


PREDICTION = Kind(PREDICTIONS, (*IDENTITY, "computed_in", "features"), _predictor)
