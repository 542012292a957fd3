"""The audit of a batch's moments: they agree with a second pass over the columns of its features."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchard_jobs.audit.file_checks import Rows
from orchard_jobs.audit.row_checks import vectors_of
from orchard_jobs.audit.verdict import Findings

MOMENTS_CHECK = {"moments": "there is one finite row: n, mean and the diagonal of the second moment are those of the features"}
TOLERANCE = 1e-9
ROUNDING = 16 * float(np.finfo(np.float64).eps)


class ColumnSums:
    """Count, mean and centred sum of squares of each column, float64 [d] (Chan, Golub and LeVeque, 1979)."""

    def __init__(self, dimension: int) -> None:
        self.n = 0
        self.mean = np.zeros(dimension)
        self.squares = np.zeros(dimension)

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows [n, d]."""
        if len(rows) == 0:
            return
        n, mean = len(rows), rows.mean(axis=0, dtype=np.float64)
        step, together = mean - self.mean, self.n + n
        self.squares += np.square(rows - mean).sum(axis=0) + step**2 * (self.n * n / together)
        self.mean += step * (n / together)
        self.n = together


def check_moments(rows: Rows, sums: ColumnSums, findings: Findings) -> None:
    """Judge `moments` against the column sums of the features."""
    findings.extend("moments", rows.path, _faults(rows, sums))


def _faults(rows: Rows, sums: ColumnSums) -> Iterator[str]:
    dimension = len(sums.mean)
    means = vectors_of(rows.column("mean"), dimension).matrix
    triangles = vectors_of(rows.column("second_moment"), dimension * (dimension + 1) // 2).matrix
    if not rows.batch.num_rows == len(means) == len(triangles) == 1:
        yield f"{rows.batch.num_rows} rows, {len(means)} means and {len(triangles)} triangles of {dimension} dimensions"
        return
    if rows.column("n")[0] != pa.scalar(sums.n, pa.int64()):
        yield f"n is {rows.column('n')[0]}, the features have {sums.n} rows"
    diagonal = diagonal_of(triangles[0], dimension)
    spread = float(np.sqrt(sums.squares.max(initial=0.0) / max(sums.n, 1)))
    offset = ROUNDING * float(np.abs(sums.mean).max(initial=0.0))
    if not np.allclose(means[0], sums.mean, rtol=TOLERANCE, atol=TOLERANCE * spread):
        yield "the mean is not that of the features"
    if not np.allclose(diagonal, sums.squares, rtol=TOLERANCE, atol=sums.n * (TOLERANCE * spread**2 + offset**2)):
        yield "the diagonal of the second moment is not that of the features"
    if not np.isfinite(triangles).all():
        yield "a value of the second moment is NaN or infinite"


def diagonal_of(triangle: NDArray[Any], dimension: int) -> NDArray[Any]:
    """Return the diagonal [d] of an upper triangle that is packed row by row."""
    row = np.arange(dimension)
    return np.asarray(triangle[row * dimension - row * (row - 1) // 2])
