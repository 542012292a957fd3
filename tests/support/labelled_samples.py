"""Labelled features for the tests of the classifier: roots with a mean a label, and one correlated spread."""

from dataclasses import dataclass

import numpy as np
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.scatter import Floats

DIMENSION = 5


@dataclass(frozen=True, eq=False)
class Labelled:
    """Features [n, d] and the label of each row."""

    rows: Floats
    labels: np.ndarray

    def take(self, which: np.ndarray) -> "Labelled":
        """Return some of the rows."""
        return Labelled(self.rows[which], self.labels[which])

    @property
    def moments(self) -> ClassMoments:
        """Their class moments, in one pass."""
        return ClassMoments.of(self.rows, list(self.labels))


def labelled(counts: dict[str, int], mean: float = 3.0, seed: int = 0) -> Labelled:
    """Return rows whose roots have a mean of about `mean` and a spread of about 1, in mixed order."""
    random = np.random.default_rng(seed)
    labels = np.repeat(list(counts), list(counts.values()))
    centres = {label: random.normal(size=DIMENSION) for label in counts}
    mix = np.diag(np.linspace(0.4, 1.2, DIMENSION)) + 0.2
    roots = random.normal(size=(len(labels), DIMENSION)) @ mix + np.array([centres[label] for label in labels])
    order = random.permutation(len(labels))
    return Labelled(np.square(np.maximum(roots + mean, 0))[order], labels[order])
