"""How right classifiers are in production: by batch, by class, by pairs of classes, and by score."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchard_jobs.classifier.stored import read_classifier
from orchard_jobs.contract.classifier_tables import EVALUATIONS, PREDICTIONS
from orchard_jobs.errors import ConfigurationError

from orchard.models.kinds import CLASSIFIER
from orchard.models.model import known_model, model_reference
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables

BINS = 10


@dataclass(frozen=True)
class BatchFigures:
    """How right a classifier is on a batch's current version; the counts are those of the table `evaluations`.

    Attributes:
        accuracy: share of the unseen images that got their own class; None where there are none.
    """

    batch_id: str
    model_id: str
    rows: int
    unseen_rows: int
    unseen_right: int
    unseen_among_three: int
    unseen_known: int
    unseen_score: float | None
    seen_rows: int
    seen_right: int
    unlabelled_rows: int
    unlabelled_known: int
    unlabelled_score: float | None

    @property
    def accuracy(self) -> float | None:
        """Right / unseen."""
        return self.unseen_right / self.unseen_rows if self.unseen_rows else None


@dataclass(frozen=True)
class ClassFigures:
    """How right predictions are for one class.

    Attributes:
        name: the class.
        rows: unseen images of it.
        right: of them, those that got it.
        predicted: unseen images that got it, whatever they are.
    """

    name: str
    rows: int
    right: int
    predicted: int


@dataclass(frozen=True)
class Mistake:
    """Unseen images of one class that got another."""

    name: str
    predicted: str
    rows: int


@dataclass(frozen=True)
class ScoreBin:
    """Unseen images by their score: where scores can be taken at their word, `score` is the share that is right.

    Attributes:
        low: the least score.
        high: the score below which they are; 1 is in the last one.
        rows: how many.
        right: of them, those that got their own class.
        score: their mean score.
    """

    low: float
    high: float
    rows: int
    right: int
    score: float


@dataclass(frozen=True)
class EvaluationReport:
    """What is known of the predictions of current batch versions.

    Attributes:
        batches: each predicted batch, sorted.
        classes: each class with unseen images or predictions of them, sorted by name.
        mistakes: pairs of classes, the most frequent first.
        bins: those with images, by score.
    """

    batches: tuple[BatchFigures, ...]
    classes: tuple[ClassFigures, ...]
    mistakes: tuple[Mistake, ...]
    bins: tuple[ScoreBin, ...]

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error: the mean of |right - score| over the bins, by their images (Guo et al., 2017)."""
        rows = sum(one.rows for one in self.bins)
        return sum(abs(one.right - one.rows * one.score) for one in self.bins) / rows if rows else None


def evaluate(tables: Tables, settings: Settings, model: str | None = None, batch_id: str | None = None) -> EvaluationReport:
    """Return how right the predictions of the settings' backbone are.

    Args:
        tables: the tables.
        settings: name the backbone.
        model: a classifier's id or its first characters. None: of each batch the classifier that had seen none of its images, if
            one has predicted it, otherwise the last one.
        batch_id: one batch; None: all.

    Raises:
        ConfigurationError: no such classifier or batch is published.
    """
    chosen = known_model(tables, settings.backbone.id, model, (CLASSIFIER,))[0] if model else None
    versions = BatchVersions.load(tables, settings.backbone.id, batch_id)
    if batch_id is not None and not versions.current:
        raise ConfigurationError(f"batch {batch_id!r} was never published: `orchard status` lists the batches")
    found = _chosen_rows(tables, versions, chosen)
    cells: Counter[tuple[str, str]] = Counter()
    for row in found.values():
        cells.update({(cell["class"], cell["predicted"]): cell["rows"] for cell in row["confusion"]})
    batches = tuple(BatchFigures(**{one.name: found[batch][one.name] for one in fields(BatchFigures)}) for batch in sorted(found))
    return EvaluationReport(batches, _by_class(cells), _mistakes(cells), _bins(_scores(tables, versions, batches)))


def _chosen_rows(tables: Tables, versions: BatchVersions, model_id: str | None) -> dict[str, dict[str, Any]]:
    """Return by batch the row of `evaluations` that counts for its current version."""
    found: dict[str, dict[str, Any]] = {}
    for row in tables.rows(EVALUATIONS):
        current = versions.current.get(row["batch_id"])
        is_wanted = model_id in (None, row["model_id"])
        if current is None or current.manifest_digest != row["manifest_digest"] or not is_wanted:
            continue
        held = found.get(row["batch_id"])
        if held is None or row["unseen_rows"] or not held["unseen_rows"]:
            found[row["batch_id"]] = row
    return found


def _by_class(cells: Mapping[tuple[str, str], int]) -> tuple[ClassFigures, ...]:
    rows, right, predicted = Counter[str](), Counter[str](), Counter[str]()
    for (name, answer), count in cells.items():
        rows[name] += count
        predicted[answer] += count
        right[name] += count * (name == answer)
    return tuple(ClassFigures(name, rows[name], right[name], predicted[name]) for name in sorted({*rows, *predicted}))


def _mistakes(cells: Mapping[tuple[str, str], int]) -> tuple[Mistake, ...]:
    found = (Mistake(*pair, count) for pair, count in cells.items() if pair[0] != pair[1])
    return tuple(sorted(found, key=lambda one: (-one.rows, one.name, one.predicted)))


def _scores(tables: Tables, versions: BatchVersions, batches: Iterable[BatchFigures]) -> Iterator[tuple[float, bool]]:
    """Yield the score of each unseen image, and whether it got its own class."""
    snapshot, class_of = tables.load(PREDICTIONS), dict[str, Mapping[str, str]]()
    for batch in batches:
        if batch.unseen_rows == 0:
            continue
        if batch.model_id not in class_of:
            reference = model_reference(tables.warehouse, batch.model_id, CLASSIFIER)
            class_of[batch.model_id] = read_classifier(tables.warehouse, reference).class_of
        digest = versions.current[batch.batch_id].manifest_digest
        files = snapshot.files(model_id=batch.model_id, batch_id=batch.batch_id)
        for row in tables.rows_of(files, ("label", "predicted", "score", "is_seen", "manifest_digest")):
            truth = class_of[batch.model_id].get(row["label"] or "")
            if truth is not None and not row["is_seen"] and row["manifest_digest"] == digest:
                yield row["score"], row["predicted"] == truth


def _bins(scores: Iterable[tuple[float, bool]]) -> tuple[ScoreBin, ...]:
    rows, right, total = [0] * BINS, [0] * BINS, [0.0] * BINS
    for score, is_right in scores:
        place = min(int(score * BINS), BINS - 1)
        rows[place] += 1
        right[place] += is_right
        total[place] += score
    return tuple(
        ScoreBin(place / BINS, (place + 1) / BINS, rows[place], right[place], total[place] / rows[place])
        for place in range(BINS)
        if rows[place]
    )
