"""Class moments: what a classifier needs of labelled rows, mergeable in any grouping. Knows no batch, no file and no Spark."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.scatter import Floats, check_triangle, merge_in_tree, pack, triangle_size

Counts = NDArray[np.int64]


def root(rows: NDArray[Any]) -> Floats:
    """Return y = sqrt(max(rows, 0)) in float64: what a classifier sees of features [n, d]. NaN stays NaN."""
    return np.asarray(np.sqrt(np.maximum(rows, 0).astype(np.float64)))


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Count and mean of each label's rows, and the scatter of all rows about the mean of their label.

    Rows are roots of features (`root`). The scatter is one for all labels: it cannot be taken apart again.

    Attributes:
        labels: sorted, each once.
        counts: int64 [l], rows of each label, none below 1.
        means: float64 [l, d].
        upper_triangle: float64 [d (d + 1) / 2], of the pooled scatter, row by row.

    Raises:
        ValueError: labels, counts, means and the triangle do not go together.
    """

    labels: tuple[str, ...]
    counts: Counts
    means: Floats
    upper_triangle: Floats

    def __post_init__(self) -> None:
        if self.labels != tuple(sorted(set(self.labels))):
            raise ValueError("the labels are not sorted, or one stands there twice")
        if self.counts.shape != (len(self.labels),) or self.means.ndim != 2 or len(self.means) != len(self.labels):
            shapes = f"counts of shape {self.counts.shape} and means of shape {self.means.shape}"
            raise ValueError(f"{len(self.labels)} labels do not go with {shapes}")
        check_triangle(self.upper_triangle, self.dimension)

    @classmethod
    def empty(cls, dimension: int = 0) -> "ClassMoments":
        """Return the class moments of no rows: the neutral element of `merge`, whatever its dimension."""
        return cls((), np.zeros(0, np.int64), np.zeros((0, dimension)), np.zeros(triangle_size(dimension)))

    @classmethod
    def of(cls, rows: NDArray[Any], labels: Sequence[str]) -> "ClassMoments":
        """Return the class moments of features [n, d], float32 or float64, and the label of each row.

        The sums are of float64 and centred before they are squared. The centres are corrected by the means of the centred
        rows (the corrected two-pass algorithm of Chan, Golub and LeVeque, 1983).

        Raises:
            ValueError: `rows` is not two-dimensional, or the labels are not one for each row.
        """
        if rows.ndim != 2 or len(rows) != len(labels):
            raise ValueError(f"rows of shape {rows.shape} do not go with {len(labels)} labels: give [n, d] and n labels")
        if len(rows) == 0:
            return cls.empty(rows.shape[1])
        names = sorted(set(labels))
        place = {name: index for index, name in enumerate(names)}
        where = np.array([place[label] for label in labels])
        centred, means = root(rows), np.zeros((len(names), rows.shape[1]))
        for index in range(len(names)):
            own = np.flatnonzero(where == index)
            means[index], centred[own] = _centre(centred[own])
        return cls(tuple(names), np.bincount(where).astype(np.int64), means, pack(centred.T @ centred))

    @property
    def dimension(self) -> int:
        """Length of a row."""
        return int(self.means.shape[1])

    @property
    def n(self) -> int:
        """Number of rows of all labels."""
        return int(self.counts.sum())


def _centre(rows: Floats) -> tuple[Floats, Floats]:
    centre = rows.mean(axis=0)
    centred = rows - centre
    correction = centred.mean(axis=0)
    return centre + correction, centred - correction


def merge(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Return the class moments of the rows of both: merge(a, b) equals merge(b, a) bit for bit.

    For a label with n_a and n_b rows, the scatter gains n_a n_b / (n_a + n_b) times the outer product of the difference of its
    means. See Chan, Golub and LeVeque (1979). A label that only one side has adds nothing.

    Raises:
        ValueError: both have rows, of different lengths.
    """
    if a.n == 0 or b.n == 0:
        return b if a.n == 0 else a
    if a.dimension != b.dimension:
        raise ValueError(f"rows of {a.dimension} and of {b.dimension} values have no class moments together")
    labels = tuple(sorted({*a.labels, *b.labels}))
    (n_a, mean_a), (n_b, mean_b) = _spread(a, labels), _spread(b, labels)
    n = n_a + n_b
    both = np.flatnonzero(n_a * n_b)
    steps = (mean_b[both] - mean_a[both]) * np.sqrt(n_a[both] * n_b[both] / n[both])[:, np.newaxis]
    means = (n_a[:, np.newaxis] * mean_a + n_b[:, np.newaxis] * mean_b) / n[:, np.newaxis]
    # a + b first: addition commutes, three terms in another order would not.
    upper_triangle = a.upper_triangle + b.upper_triangle
    if both.size:
        upper_triangle += pack(steps.T @ steps)
    return ClassMoments(labels, n, means, upper_triangle)


def _spread(moments: ClassMoments, labels: Sequence[str]) -> tuple[Counts, Floats]:
    """Return counts and means in the order of `labels`; a label that is not there has 0 rows and the mean 0."""
    counts, means = np.zeros(len(labels), np.int64), np.zeros((len(labels), moments.dimension))
    place = {label: index for index, label in enumerate(labels)}
    own = [place[label] for label in moments.labels]
    counts[own], means[own] = moments.counts, moments.means
    return counts, means


def merge_all(parts: Iterable[ClassMoments]) -> ClassMoments:
    """Return the class moments of all parts' rows, merged in a tree (`merge_in_tree`); no parts give the empty ones."""
    return merge_in_tree(parts, merge, ClassMoments.empty())
