"""Scatter: sums of outer products, kept as the upper triangle, and the tree in which statistics of batches are merged.

Knows no batch and no file: `pca` and `classifier` build on it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistics = TypeVar("Statistics")
EPSILON = float(np.finfo(np.float64).eps)
# A mean is off by a few roundings: half an epsilon for its own, and one a level of the merge tree.
_MEAN_ROUNDINGS = 16


def triangle_size(dimension: int) -> int:
    """Return the number of values in an upper triangle, diagonal included."""
    return dimension * (dimension + 1) // 2


def triangle_rows(upper_triangle: Floats, dimension: int) -> Iterator[Floats]:
    """Yield a view of each row of a triangle, from its diagonal on."""
    first = 0
    for length in range(dimension, 0, -1):
        yield upper_triangle[first : first + length]
        first += length


def pack(matrix: Floats) -> Floats:
    """Return the upper triangle of a symmetric matrix [d, d], row by row."""
    upper_triangle = np.empty(triangle_size(len(matrix)))
    for index, row in enumerate(triangle_rows(upper_triangle, len(matrix))):
        row[:] = matrix[index, index:]
    return upper_triangle


def unpack(upper_triangle: Floats, dimension: int) -> Floats:
    """Return the symmetric matrix [d, d] of an upper triangle."""
    matrix = np.empty((dimension, dimension))
    for index, row in enumerate(triangle_rows(upper_triangle, dimension)):
        matrix[index, index:] = matrix[index:, index] = row
    return matrix


def trace(upper_triangle: Floats, dimension: int) -> float:
    """Return the sum of the diagonal of a triangle."""
    return float(sum(row[0] for row in triangle_rows(upper_triangle, dimension)))


def check_triangle(upper_triangle: Floats, dimension: int) -> None:
    """Raise ValueError unless the triangle is that of rows of `dimension` values."""
    if upper_triangle.shape != (triangle_size(dimension),):
        raise ValueError(f"a triangle of shape {upper_triangle.shape} does not go with a mean of {dimension} values")


def merge_in_tree(
    parts: Iterable[Statistics], merge: Callable[[Statistics, Statistics], Statistics], empty: Statistics
) -> Statistics:
    """Return all parts merged pairwise in a tree; no parts give `empty`.

    At most log2(parts) + 1 are held at a time, as the digits of a binary counter. Equal parts in equal order give equal
    bits: callers that want one result for one set of batches sort by batch.
    """
    held: list[tuple[int, Statistics]] = []
    for part in parts:
        level, merged = 0, part
        while held and held[-1][0] == level:
            merged = merge(held.pop()[1], merged)
            level += 1
        held.append((level, merged))
    total = empty
    while held:
        total = merge(held.pop()[1], total)
    return total


def noise_floor(n: int, mean: Floats) -> float:
    """Return the sum of squares that n equal rows can show in float64.

    A computed mean is off by a few relative roundings u of each value. Chan's merge turns an offset e of a mean into at most n
    |e|^2, so the floor is n (16 u |mean|)^2.
    """
    return n * (_MEAN_ROUNDINGS * EPSILON * float(np.linalg.norm(mean))) ** 2
