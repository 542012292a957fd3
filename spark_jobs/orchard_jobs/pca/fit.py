"""Fit: moments become an orthonormal basis, and the share of variance that any basis keeps. Knows no model id, no file."""

from dataclasses import dataclass

import numpy as np

from orchard_jobs.pca.moments import Moments
from orchard_jobs.scatter import Floats, noise_floor

# How many components a model is to have: a whole number of them, or (a float above 0 and below 1) the share of the variance
# that the least number of them keeps.
Components = int | float


@dataclass(frozen=True, eq=False)
class Basis:
    """The first principal components of some rows.

    Attributes:
        mean: float64 [d].
        components: float64 [k_used, d], row-major, orthonormal rows by falling variance; the largest loading of each is
            positive (of equal ones the first).
        explained_variance: float64 [k_used], the variance along each component, with n - 1 in the denominator.
        explained_variance_ratio: float64 [k_used], its share of the whole variance.
    """

    mean: Floats
    components: Floats
    explained_variance: Floats
    explained_variance_ratio: Floats

    @property
    def k_used(self) -> int:
        """Number of components."""
        return len(self.components)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues and eigenvectors of a second moment, decomposed once for a fit and for gains.

    Attributes:
        moments: what was decomposed.
        eigenvalues: float64 [d], falling, none below zero.
        eigenvectors: float64 [d, d], one a row, in the order of the eigenvalues.
    """

    moments: Moments
    eigenvalues: Floats
    eigenvectors: Floats

    @classmethod
    def of(cls, moments: Moments) -> "Spectrum":
        """Decompose a second moment (numpy.linalg.eigh: about 1 s for 1,280 dimensions, 4 s for 2,048).

        Raises:
            ValueError: a value of the second moment is NaN or infinite.
        """
        if not np.isfinite(moments.upper_triangle).all():
            raise ValueError(f"the second moment of {moments.n} rows holds NaN or infinity: audit the rows it was made of")
        eigenvalues, eigenvectors = np.linalg.eigh(moments.second_moment)
        return cls(moments, np.maximum(eigenvalues[::-1], 0.0), eigenvectors.T[::-1])

    @property
    def rank(self) -> int:
        """The numerical rank: eigenvalues above max(n, d) u l1 + n (16 u |mean|)^2, with u = 2^-52.

        The first term has the form of numpy.linalg.matrix_rank's tolerance, over the longer side because each entry is a
        sum over n rows; the second is what rounded means leave (`moments.noise_floor`). Rows that repeat others
        therefore add no rank, in whichever order they were merged.
        """
        moments = self.moments
        if moments.n < 2 or not moments.has_variance:
            return 0
        relative = max(moments.n, moments.dimension) * float(np.finfo(np.float64).eps)
        tolerance = relative * float(self.eigenvalues[0]) + noise_floor(moments.n, moments.mean)
        return min(int((self.eigenvalues > tolerance).sum()), moments.n - 1)

    def count(self, wanted: Components) -> int:
        """Return the number of components that a fit has: the wanted one, or the least that keeps the wanted share.

        Neither is more than min(n - 1, numerical rank, d): where no number of components keeps the share, it is all of them.
        """
        if isinstance(wanted, int):
            return min(wanted, self.rank)
        kept = np.cumsum(self.eigenvalues[: self.rank])
        return min(int(np.searchsorted(kept, wanted * self.eigenvalues.sum())) + 1, self.rank)

    def fit(self, wanted: Components) -> Basis | None:
        """Return the basis of `count(wanted)` components, or None when that is 0.

        Components whose eigenvalues are equal to within the rounding are any basis of their common space.
        """
        k_used = self.count(wanted)
        if k_used < 1:
            return None
        eigenvalues = self.eigenvalues[:k_used]
        components = _with_fixed_signs(self.eigenvectors[:k_used])
        variance = eigenvalues / (self.moments.n - 1)
        return Basis(self.moments.mean, components, variance, eigenvalues / self.moments.total)

    def best_share(self, wanted: Components) -> float:
        """Return the largest share of the variance that so many components can keep (Ky Fan): 1.0 where there is none."""
        if self.rank == 0:
            return 1.0
        return float(self.eigenvalues[: self.count(wanted)].sum() / self.eigenvalues.sum())

    def gain(self, components: Floats, wanted: Components) -> float:
        """Return the share of variance that a refit would keep beyond `components` [k', d].

        It is 0.0 where there is no variance, and below zero only if the refit has fewer components. If a share is wanted, the
        refit keeps that share and little more. The gain then says how far the components have fallen below it; below zero, that
        they keep more than is wanted.
        """
        if self.rank == 0:
            return 0.0
        return self.best_share(wanted) - kept_share(self.moments, components)


def subspace_distance(one: Floats, other: Floats) -> float:
    """Return the sine of the largest principal angle between the spaces of orthonormal rows [k, d] and [k', d].

    It is |W - W V'V| in the spectral norm, W being the one with fewer rows. It is 0.0 where the smaller space lies in the larger,
    and 1.0 where a direction of the smaller is orthogonal to all of the larger. The order of the two does not matter. The arccos
    of a singular value is not used, because its rounding hides every angle below 3e-8.
    """
    small, large = sorted((one, other), key=len)
    return min(float(np.linalg.norm(small - (small @ large.T) @ large, 2)), 1.0)


def kept_share(moments: Moments, components: Floats) -> float:
    """Return trace(V C V') / trace(C), the share of the variance that orthonormal components [k, d] keep.

    No decomposition is made. The share is 1.0 where there is no variance.
    """
    if not moments.has_variance:
        return 1.0
    kept = np.einsum("ij,ij->", components @ moments.second_moment, components)
    return float(kept) / moments.total


def _with_fixed_signs(components: Floats) -> Floats:
    largest = np.abs(components).argmax(axis=1)
    loadings = components[np.arange(len(components)), largest]
    return np.ascontiguousarray(components * np.sign(loadings)[:, np.newaxis])
