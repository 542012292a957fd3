"""Moments: what a fit needs of any set of rows, mergeable in any grouping. Knows no batch, no file and no Spark."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_EPSILON = float(np.finfo(np.float64).eps)
# A mean is off by a few roundings: half an epsilon for its own, and one a level of the merge tree.
_MEAN_ROUNDINGS = 16


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and centred second moment of rows.

    Attributes:
        n: number of rows.
        mean: float64 [d].
        upper_triangle: float64 [d (d + 1) / 2], of `second_moment`, row by row. A file holds this, and a merge needs no more.

    Raises:
        ValueError: the triangle is not that of a mean of this length.
    """

    n: int
    mean: Floats
    upper_triangle: Floats

    def __post_init__(self) -> None:
        if self.upper_triangle.shape != (_triangle_size(self.dimension),):
            raise ValueError(
                f"a triangle of shape {self.upper_triangle.shape} does not go with a mean of {self.dimension} values"
            )

    @classmethod
    def empty(cls, dimension: int = 0) -> "Moments":
        """Return the moments of no rows: the neutral element of `merge`, whatever its dimension."""
        return cls(0, np.zeros(dimension), np.zeros(_triangle_size(dimension)))

    @classmethod
    def of(cls, rows: NDArray[Any]) -> "Moments":
        """Return the moments of float32 or float64 rows [n, d], in float64 and centred before they are squared.

        The centre is corrected by the mean of the centred rows (the corrected two-pass algorithm of Chan, Golub and
        LeVeque, 1983), so rows that are all alike have a second moment of zero to the last rounding.

        Raises:
            ValueError: `rows` is not two-dimensional.
        """
        if rows.ndim != 2:
            raise ValueError(f"rows have shape {rows.shape}, not [n, d]: reshape them")
        n, dimension = rows.shape
        if n == 0:
            return cls.empty(dimension)
        centre = rows.mean(axis=0, dtype=np.float64)
        centred = rows.astype(np.float64)
        centred -= centre
        correction = centred.mean(axis=0)
        centred -= correction
        second_moment, upper_triangle = centred.T @ centred, np.empty(_triangle_size(dimension))
        for index, row in enumerate(_rows(upper_triangle, dimension)):
            row[:] = second_moment[index, index:]
        return cls(n, centre + correction, upper_triangle)

    @classmethod
    def of_chunks(cls, chunks: Iterable[NDArray[Any]]) -> "Moments":
        """Return the moments of rows that come in chunks [n_i, d], holding one chunk at a time."""
        return merge_all(cls.of(chunk) for chunk in chunks)

    @property
    def dimension(self) -> int:
        """Length of a row."""
        return int(self.mean.size)

    @property
    def second_moment(self) -> Floats:
        """The sum over the rows of the outer products of (row - mean): float64 [d, d], made again at each call."""
        second_moment = np.empty((self.dimension, self.dimension))
        for index, row in enumerate(_rows(self.upper_triangle, self.dimension)):
            second_moment[index, index:] = second_moment[index:, index] = row
        return second_moment

    @property
    def total(self) -> float:
        """The sum of squares about the mean: the trace of the second moment."""
        return float(sum(row[0] for row in _rows(self.upper_triangle, self.dimension)))

    @property
    def has_variance(self) -> bool:
        """Tell whether the rows differ by more than the rounding of their mean."""
        return self.total > noise_floor(self.n, self.mean)


def _triangle_size(dimension: int) -> int:
    return dimension * (dimension + 1) // 2


def _rows(upper_triangle: Floats, dimension: int) -> Iterator[Floats]:
    """Yield a view of each row of a triangle, from its diagonal on."""
    first = 0
    for length in range(dimension, 0, -1):
        yield upper_triangle[first : first + length]
        first += length


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of the rows of both (Chan, Golub and LeVeque, 1979): merge(a, b) equals merge(b, a) bit for bit.

    The mean is the weighted one, which unlike an update of the larger side's mean is exact about the order.

    Raises:
        ValueError: both have rows, of different lengths.
    """
    if a.n == 0 or b.n == 0:
        return b if a.n == 0 else a
    if a.dimension != b.dimension:
        raise ValueError(f"rows of {a.dimension} and of {b.dimension} values have no moments together")
    n = a.n + b.n
    step = (b.mean - a.mean) * sqrt(a.n * b.n / n)
    upper_triangle = np.empty(a.upper_triangle.size)
    for index, row in enumerate(_rows(upper_triangle, step.size)):
        np.multiply(step[index:], step[index], out=row)
    # a + b first: addition commutes, three terms in another order would not.
    upper_triangle += a.upper_triangle + b.upper_triangle
    return Moments(n, (a.n * a.mean + b.n * b.mean) / n, upper_triangle)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all parts' rows, merged pairwise in a tree; no parts give the empty moments.

    At most log2(parts) + 1 moments are held at a time, as the digits of a binary counter. Equal parts in equal order
    give equal bits: callers that want one result for one set of batches sort by batch.
    """
    held: list[tuple[int, Moments]] = []
    for part in parts:
        level, merged = 0, part
        while held and held[-1][0] == level:
            merged = merge(held.pop()[1], merged)
            level += 1
        held.append((level, merged))
    total = Moments.empty()
    while held:
        total = merge(held.pop()[1], total)
    return total


def noise_floor(n: int, mean: Floats) -> float:
    """Return the sum of squares that n equal rows can show in float64.

    A computed mean is off by a few relative roundings u of each value, and Chan's merge turns an offset e of a mean into
    at most n |e|^2: the floor is n (16 u |mean|)^2.
    """
    return n * (_MEAN_ROUNDINGS * _EPSILON * float(np.linalg.norm(mean))) ** 2
