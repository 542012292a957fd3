"""Moments: what a fit needs of any set of rows, mergeable in any grouping. Knows no batch, no file and no Spark."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.scatter import (
    Floats,
    check_triangle,
    merge_in_tree,
    noise_floor,
    pack,
    trace,
    triangle_rows,
    triangle_size,
    unpack,
)


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
        check_triangle(self.upper_triangle, self.dimension)

    @classmethod
    def empty(cls, dimension: int = 0) -> "Moments":
        """Return the moments of no rows: the neutral element of `merge`, whatever its dimension."""
        return cls(0, np.zeros(dimension), np.zeros(triangle_size(dimension)))

    @classmethod
    def of(cls, rows: NDArray[Any]) -> "Moments":
        """Return the moments of float32 or float64 rows [n, d], in float64 and centred before they are squared.

        The centre is corrected by the mean of the centred rows (the corrected two-pass algorithm of Chan, Golub and LeVeque,
        1983). So rows that are all alike have a second moment of zero, up to rounding.

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
        return cls(n, centre + correction, pack(centred.T @ centred))

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
        return unpack(self.upper_triangle, self.dimension)

    @property
    def total(self) -> float:
        """The sum of squares about the mean: the trace of the second moment."""
        return trace(self.upper_triangle, self.dimension)

    @property
    def has_variance(self) -> bool:
        """Tell whether the rows differ by more than the rounding of their mean."""
        return self.total > noise_floor(self.n, self.mean)


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
    for index, row in enumerate(triangle_rows(upper_triangle, step.size)):
        np.multiply(step[index:], step[index], out=row)
    # a + b first: addition commutes, three terms in another order would not.
    upper_triangle += a.upper_triangle + b.upper_triangle
    return Moments(n, (a.n * a.mean + b.n * b.mean) / n, upper_triangle)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all parts' rows, merged in a tree (`merge_in_tree`); no parts give the empty moments."""
    return merge_in_tree(parts, merge, Moments.empty())
