"""The audit of predictions: they are exactly the features' rows, each can be an answer, and the evaluation counts them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchard_jobs.audit.file_checks import Rows
from orchard_jobs.audit.matched_rows import ModelRows, keys_of, matched_rows
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.evaluations import Cell, Evaluation
from orchard_jobs.contract.jobs import BatchVersion, JobReport
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import Warehouse

PREDICTION_CHECKS = {
    "predicted_rows": "predictions has exactly the rows of features: image_uri, content_sha256 and label",
    "predictions": "a row names two classes of the classifier, the likelier one first, with scores of 0 to 1 and a finite "
    "distance, and says rightly whether the image is known and seen",
    "evaluation": "the report gives one evaluation per classifier and batch, which counts the predictions",
}
_COLUMNS = ("predicted", "second", "score", "second_score", "distance", "is_known", "is_seen", "label")
_ROUNDING = 1e-9
Key = tuple[str | None, str, bool]


@dataclass(frozen=True)
class _Facts:
    """What a classifier's file says of its answers: its classes, what labels mean, its largest distance and its batches."""

    classes: frozenset[str]
    class_of: Mapping[str, str]
    max_distance: float
    batches: frozenset[str]

    @classmethod
    def read(cls, warehouse: Warehouse, model: ModelReference) -> "_Facts":
        with open_parquet(warehouse, model.path) as file:
            (row,) = file.read(["classes", "class_of", "max_distance", "merged_from"]).to_pylist()
        return cls(
            frozenset(row["classes"]),
            {entry["label"]: entry["class"] for entry in row["class_of"]},
            row["max_distance"],
            frozenset(source["batch_id"] for source in row["merged_from"]),
        )


def check_predicted(
    warehouse: Warehouse, model: ModelReference, batch: BatchVersion, report: JobReport, findings: Findings
) -> None:
    """Judge one batch's predictions by one classifier: its rows, `predicted_rows`, `predictions` and `evaluation`."""
    of = ModelRows(warehouse, PREDICTIONS, model, batch)
    facts = _Facts.read(warehouse, model)
    unseen, counted = _unseen(of, facts), _Counted(facts)
    for chunk in matched_rows(of, report, "predicted_rows", findings):
        findings.extend("predictions", chunk.path, _faults(chunk, facts, unseen))
        counted.add(chunk)
    findings.extend("evaluation", "report", _evaluation_faults(model, batch, report.evaluations, counted))


def _unseen(of: ModelRows, facts: _Facts) -> set[bytes]:
    """Return the keys of the rows that are a fair test: computed by this manifest, of a batch that the fit had not."""
    if of.batch.batch_id in facts.batches:
        return set()
    found = set()
    for chunk in of.features("image_uri", "content_sha256", "label", "computed_in"):
        keys = (key for _, key in keys_of([chunk]))
        origins = chunk.values("computed_in")
        found |= {key for key, origin in zip(keys, origins, strict=True) if origin == of.batch.manifest_digest}
    return found


def _faults(chunk: Rows, facts: _Facts, unseen: set[bytes]) -> Iterator[str]:
    columns = (chunk.column(name).to_pylist() for name in _COLUMNS)
    for (name, key), row in zip(keys_of([chunk]), zip(*columns, strict=True), strict=True):
        predicted, second, score, second_score, distance, is_known, is_seen, _ = row
        if None in row[:-1]:
            continue
        if not {predicted, second} <= facts.classes or predicted == second:
            yield f"{name}: {predicted!r} and {second!r} are not two classes of the classifier"
        if not 0 <= second_score <= score <= 1 + _ROUNDING:
            yield f"{name}: score {score}, second {second_score}"
        if not (math.isfinite(distance) and distance >= 0) or is_known != (distance <= facts.max_distance):
            yield f"{name}: distance {distance}, the largest is {facts.max_distance}, is_known {is_known}"
        if is_seen == (key in unseen):
            yield f"{name}: is_seen {is_seen}"


@dataclass
class _Counted:
    """The predictions by true class, predicted class and `is_seen`: rows, the fewest among three, known ones, sum of scores."""

    facts: _Facts
    cells: dict[Key, tuple[int, int, int, float]] = field(default_factory=dict)

    def add(self, chunk: Rows) -> None:
        columns = (chunk.column(name).to_pylist() for name in _COLUMNS)
        for predicted, second, score, _, _, is_known, is_seen, label in zip(*columns, strict=True):
            truth = self.facts.class_of.get(label) if label is not None else None
            rows, among, known, total = self.cells.get((truth, predicted, is_seen), (0, 0, 0, 0.0))
            is_among = truth is not None and truth in (predicted, second)
            self.cells[truth, predicted, is_seen] = (rows + 1, among + is_among, known + bool(is_known), total + (score or 0.0))


def _evaluation_faults(
    model: ModelReference, batch: BatchVersion, evaluations: tuple[Evaluation, ...], counted: _Counted
) -> Iterator[str]:
    wanted = (model.model_id, batch.batch_id, batch.manifest_digest)
    found = [one for one in evaluations if (one.model_id, one.batch_id, one.manifest_digest) == wanted]
    if len(found) != 1:
        yield f"classifier {model.model_id}, batch {batch.batch_id}: reported {len(found)} times"
    for one in found:
        reported = {(cell.truth, cell.predicted, cell.is_seen): cell for cell in one.cells}
        if len(reported) != len(one.cells) or reported.keys() != counted.cells.keys():
            yield f"batch {batch.batch_id}: {len(one.cells)} cells, the predictions make {len(counted.cells)}"
            continue
        for key, cell in reported.items():
            if not _is_right(cell, *counted.cells[key]):
                yield f"batch {batch.batch_id}: {cell}, the predictions make {counted.cells[key]}"


def _is_right(cell: Cell, rows: int, among: int, known: int, score: float) -> bool:
    is_counted = (cell.rows, cell.known) == (rows, known) and among <= cell.among_three <= rows
    return is_counted and math.isclose(cell.score, score, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
