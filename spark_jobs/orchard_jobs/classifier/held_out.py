"""Held-out rows: what chooses a classifier's shrinkage, and what its scores and distances are calibrated on.

Labelled rows are parted in folds. The rows of one fold are scored by a fit on all others, which merge exactly (`class_moments`).
Of many rows a share is scored, drawn by their content, so that memory does not grow with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.classifier.calibration import fit_temperature
from orchard_jobs.classifier.class_moments import ClassMoments, merge_all
from orchard_jobs.classifier.classes import Classes, classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.scatter import Floats

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
FOLDS = 5
SCORED_ROWS = 20_000
"""About the most held-out rows that are scored: an accuracy of 0.8 is then known to 0.3 points (one standard error)."""
KEPT_SHARE = 0.95
"""Share of the held-out rows whose distance is within a classifier's `max_distance`."""
# Below each score of a row, and finite: the probability of a class that its fit did not know is 0.
_UNKNOWN = 1e7


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Rows of one fold.

    Attributes:
        features: float32 [n, d].
        truth: the class of each.
        sources: int64 [n], the number of the batch version that each is of.
    """

    features: NDArray[Any]
    truth: tuple[str, ...]
    sources: NDArray[np.int64]

    def of_classes(self, names: Sequence[str]) -> "HeldOutRows":
        """Return the rows of some classes."""
        known = set(names)
        kept = [index for index, name in enumerate(self.truth) if name in known]
        return HeldOutRows(self.features[kept], tuple(self.truth[index] for index in kept), self.sources[kept])


NO_ROWS = HeldOutRows(np.zeros((0, 0), np.float32), (), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """What a fit that had not seen them makes of n held-out rows.

    Attributes:
        rows: the rows; none where they were not kept.
        scores: float64 [n, c], of all classes in their order.
        truth: int64 [n], the place of each row's class.
        distances: float64 [n], of each row to the mean of its likeliest class.
    """

    rows: HeldOutRows
    scores: Floats
    truth: NDArray[np.int64]
    distances: Floats

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether each row's likeliest class is its own."""
        return np.asarray(self.scores.argmax(axis=1) == self.truth)


def fold_of_content(content_sha256: str, folds: int = FOLDS) -> int:
    """Return the fold of a content, whatever batches and labels it stands in."""
    return int(content_sha256[-8:], 16) % folds


def is_scored(content_sha256: str, share: float) -> bool:
    """Tell whether a content is of the share that is scored. Its fold is told by other digits."""
    return int(content_sha256[:8], 16) < share * 16**8


def all_but(folds: Sequence[ClassMoments], fold: int) -> ClassMoments:
    """Return the class moments of all folds but one."""
    return merge_all(moments for number, moments in enumerate(folds) if number != fold)


def count_right(others: ClassMoments, class_of: Mapping[str, str], rows: HeldOutRows) -> tuple[int, tuple[int, ...]]:
    """Return how many rows of a fold can be scored, and how many of them get their class, for each of `SHRINKAGES`.

    Args:
        others: the class moments of all other folds.
        class_of: the class of each label that has one.
        rows: the rows. Those of a class that stands in no other fold cannot be scored.
    """
    classes, rows = _scorable(others, class_of, rows)
    if not rows.truth:
        return 0, (0,) * len(SHRINKAGES)
    truth = _places(classes.names, rows.truth)
    found = (fit(classes, shrinkage).scores_of(rows.features).argmax(axis=1) for shrinkage in SHRINKAGES)
    return len(truth), tuple(int((places == truth).sum()) for places in found)


def choose_shrinkage(right: Sequence[Sequence[int]]) -> float:
    """Return the shrinkage with the most right rows of all folds; of equal ones the largest, which trusts the rows least."""
    totals = np.sum(np.array(right), axis=0)
    return max(zip(totals, SHRINKAGES, strict=True))[1]


def score_held_out(
    others: ClassMoments, class_of: Mapping[str, str], shrinkage: float, names: Sequence[str], rows: HeldOutRows
) -> HeldOutScores:
    """Return what a fit on all other folds makes of those rows of a fold that can be scored.

    Args:
        others: the class moments of all other folds.
        class_of: the class of each label that has one.
        shrinkage: the chosen one.
        names: all classes, sorted; the score of one that stands in no other fold is far below all others.
        rows: the rows.
    """
    classes, rows = _scorable(others, class_of, rows)
    if not rows.truth:
        return HeldOutScores(rows, np.zeros((0, len(names))), np.zeros(0, np.int64), np.zeros(0))
    classifier = fit(classes, shrinkage)
    whitened = classifier.whiten(rows.features)
    own = classifier.scores(whitened)
    scores = np.full((len(own), len(names)), own.min() - _UNKNOWN)
    scores[:, _places(names, classes.names)] = own
    return HeldOutScores(rows, scores, _places(names, rows.truth), classifier.distances(whitened, own.argmax(axis=1)))


def calibrate(scored: Sequence[HeldOutScores]) -> tuple[float, float]:
    """Return the temperature and the largest distance that go with the scores of all folds.

    Raises:
        ValueError: no row was scored.
    """
    distances = np.concatenate([one.distances for one in scored])
    temperature = fit_temperature(np.concatenate([one.scores for one in scored]), np.concatenate([one.truth for one in scored]))
    if all(one.is_right.all() for one in scored):
        # The colder, the likelier: each score would be 1, however few rows say so.
        temperature = max(temperature, 1.0)
    return temperature, float(np.quantile(distances, KEPT_SHARE, method="higher"))


def _scorable(others: ClassMoments, class_of: Mapping[str, str], rows: HeldOutRows) -> tuple[Classes, HeldOutRows]:
    """Return the classes of the other folds, and the rows that are of them; none where there are fewer than two classes."""
    classes = classes_of(others, class_of)
    return classes, rows.of_classes(classes.names if len(classes.names) > 1 else ())


def _places(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in wanted], np.int64)
