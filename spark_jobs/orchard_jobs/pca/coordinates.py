"""Project: rows become coordinates in a basis, and a tally of the variance that the basis keeps of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.jobs import Captured
from orchard_jobs.scatter import Floats, noise_floor


def project(rows: NDArray[Any], mean: Floats, components: Floats) -> Floats:
    """Return the coordinates float64 [n, k] of rows [n, d] about `mean` [d] along `components` [k, d]."""
    return np.asarray((rows.astype(np.float64) - mean) @ components.T)


@dataclass(frozen=True, eq=False)
class VarianceTally:
    """How much of some rows' variance a basis keeps, chunk by chunk; no value is ever changed in place.

    Both sums are about the rows' own mean, not the basis's, so a batch is judged by its own spread. They merge like moments
    (Chan, Golub and LeVeque, 1979), with traces in place of the second moment.

    Attributes:
        components: float64 [k, d], orthonormal.
        n: rows so far.
        mean: float64 [d], their mean.
        total: their sum of squares about it; 0.0 where it is below the rounding of the mean.
        kept: the same for their projections.
    """

    components: Floats
    n: int
    mean: Floats
    total: float
    kept: float

    @classmethod
    def empty(cls, mean: Floats, components: Floats) -> "VarianceTally":
        """Return the tally of no rows for a basis (mean [d], components [k, d])."""
        return cls(components, 0, np.zeros_like(mean), 0.0, 0.0)

    def add(self, rows: NDArray[Any]) -> "VarianceTally":
        """Return the tally with rows [n, d] added."""
        if len(rows) == 0:
            return self
        centre = rows.mean(axis=0, dtype=np.float64)
        centred = rows.astype(np.float64) - centre
        correction = centred.mean(axis=0)
        centred -= correction
        along = centred @ self.components.T
        sums = float(np.square(centred).sum()), float(np.square(along).sum())
        return self.merge(VarianceTally(self.components, len(rows), centre + correction, *sums))

    def merge(self, other: "VarianceTally") -> "VarianceTally":
        """Return the tally of the rows of both, which were tallied for one basis."""
        n = self.n + other.n
        if n == 0:
            return self
        step = other.mean - self.mean
        weight = self.n * other.n / n
        mean = (self.n * self.mean + other.n * other.mean) / n
        total = self.total + other.total + weight * float(step @ step)
        if total <= noise_floor(n, mean):
            return VarianceTally(self.components, n, mean, 0.0, 0.0)
        along = self.components @ step
        return VarianceTally(self.components, n, mean, total, self.kept + other.kept + weight * float(along @ along))

    def captured(self, model_id: str, batch_id: str, manifest_digest: str) -> Captured:
        """Return the tally of one batch version, with this model's basis, as a job reports it."""
        return Captured(model_id, batch_id, manifest_digest, self.n, self.total, self.kept)
