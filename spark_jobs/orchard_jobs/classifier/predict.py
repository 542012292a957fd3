"""Predict: features become the likeliest class, the runner-up, and whether an image is of any class at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.classifier.calibration import probabilities
from orchard_jobs.classifier.stored import StoredClassifier
from orchard_jobs.scatter import Floats

Places = NDArray[np.int64]
AMONG = 3


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier says of n rows.

    Attributes:
        classes: the classifier's, sorted.
        ranked: int64 [n, r], the places in `classes` of the likeliest r of them, r being 3, or 2 of two classes.
        scores: float64 [n, r], their calibrated probabilities.
        distance: float64 [n], of each row to the mean of its likeliest class (Mahalanobis).
        is_known: bool [n], whether that distance is not above the classifier's largest: else the row is of none of the classes.
    """

    classes: tuple[str, ...]
    ranked: Places
    scores: Floats
    distance: Floats
    is_known: NDArray[np.bool_]

    def names(self, rank: int) -> list[str]:
        """Return the class of a rank (0: the likeliest) of each row."""
        return [self.classes[place] for place in self.ranked[:, rank]]

    def is_among(self, truth: Sequence[str | None]) -> NDArray[np.bool_]:
        """Tell of each row whether its true class is among the ranked ones."""
        rows = zip(self.ranked, truth, strict=True)
        return np.array([name in {self.classes[place] for place in row} for row, name in rows], bool)


def predict(features: NDArray[Any], stored: StoredClassifier) -> Predictions:
    """Return what a classifier says of features [n, d], float32 or float64.

    Of equal scores the class comes first that is first by name.
    """
    whitened = stored.classifier.whiten(features)
    scores = stored.classifier.scores(whitened)
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :AMONG]
    best = np.take_along_axis(probabilities(scores, stored.temperature), ranked, axis=1)
    distance = stored.classifier.distances(whitened, ranked[:, 0])
    return Predictions(stored.classifier.classes, ranked, best, distance, distance <= stored.max_distance)
