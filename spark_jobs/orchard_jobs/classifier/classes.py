"""Classes: labels put together to what they mean, and the scatter that a fit of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchard_jobs.classifier.class_moments import ClassMoments, Counts
from orchard_jobs.scatter import Floats, unpack


@dataclass(frozen=True, eq=False)
class Classes:
    """Count and mean of each class's rows, and the scatter about the classes' means.

    Attributes:
        names: sorted, each once.
        counts: int64 [c], rows of each class.
        means: float64 [c, d].
        scatter: float64 [d, d], pooled over the classes, and over the labels that are in no class.
        n: the rows that the scatter is of, those of labels in no class included.
    """

    names: tuple[str, ...]
    counts: Counts
    means: Floats
    scatter: Floats
    n: int

    @property
    def dimension(self) -> int:
        """Length of a row."""
        return int(self.means.shape[1])


def classes_of(moments: ClassMoments, class_of: Mapping[str, str] | None = None) -> Classes:
    """Return the classes that labels mean, each label being one without `class_of`.

    A class's labels add the scatter of their means about the mean of the class to the pooled one, as in an analysis of
    variance: the scatter of a class is that within its labels and that between them. A label that `class_of` does not have
    is in no class. Its own scatter stays in the pooled one, from which it cannot be taken.
    """
    class_of = {label: label for label in moments.labels} if class_of is None else class_of
    members: dict[str, list[int]] = {}
    for index, label in enumerate(moments.labels):
        if label in class_of:
            members.setdefault(class_of[label], []).append(index)
    names = tuple(sorted(members))
    counts = np.array([moments.counts[members[name]].sum() for name in names], np.int64)
    means, scatter = np.zeros((len(names), moments.dimension)), unpack(moments.upper_triangle, moments.dimension)
    for index, name in enumerate(names):
        means[index], steps = _mean_and_steps(moments.counts[members[name]], moments.means[members[name]])
        if len(steps) > 1:
            scatter += steps.T @ steps
    return Classes(names, counts, means, scatter, moments.n)


def _mean_and_steps(counts: Counts, means: Floats) -> tuple[Floats, Floats]:
    """Return the weighted mean of means [l, d], and their steps from it, times the roots of their counts."""
    weights = (counts / counts.sum())[:, np.newaxis]
    centre = (weights * means).sum(axis=0)
    centred = means - centre
    correction = (weights * centred).sum(axis=0)
    return centre + correction, (centred - correction) * np.sqrt(counts)[:, np.newaxis]
