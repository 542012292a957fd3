"""Fit: classes become a regularised linear discriminant analysis. Knows no classifier's id, no file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.classifier.class_moments import root
from orchard_jobs.classifier.classes import Classes
from orchard_jobs.scatter import EPSILON, Floats, noise_floor

_COLUMNS_AT_ONCE = 256


# The side from which on a triangular matrix is halved to be inverted.
_SMALL = 64


@dataclass(frozen=True, eq=False)
class Classifier:
    """One shared covariance, whitened, and the classes' means in it.

    Attributes:
        classes: names, sorted.
        mean: float64 [d], the mean of the classes' means.
        whitening: float64 [d, d], lower triangular: the inverse of the Cholesky factor of the covariance.
        centres: float64 [c, d], the classes' means about `mean`, whitened.
        log_priors: float64 [c].
    """

    classes: tuple[str, ...]
    mean: Floats
    whitening: Floats
    centres: Floats
    log_priors: Floats

    def whiten(self, rows: NDArray[Any]) -> Floats:
        """Return features [n, d] as float64 [n, d] in which the covariance of each class is the unit matrix."""
        centred = root(rows) - self.mean
        whitened = np.empty_like(centred)
        # What is above the diagonal is 0: to leave most of it out saves a third of the time.
        for first in range(0, len(self.mean), _COLUMNS_AT_ONCE):
            last = first + _COLUMNS_AT_ONCE
            whitened[:, first:last] = centred[:, :last] @ self.whitening[first:last, :last].T
        return whitened

    def scores(self, whitened: Floats) -> Floats:
        """Return the scores float64 [n, c] of whitened rows: the log posterior of each class, up to one number a row.

        That number is the same for all classes of a row, so the largest score wins. `calibration.probabilities` turns the scores
        into the posteriors (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, (4.10)).
        """
        offsets = self.log_priors - np.square(self.centres).sum(axis=1) / 2
        return np.asarray(whitened @ self.centres.T + offsets)

    def scores_of(self, rows: NDArray[Any]) -> Floats:
        """Return `scores` float64 [n, c] of features [n, d] that nobody needs whitened: d x c steps a row, not d x d."""
        offsets = self.log_priors - np.square(self.centres).sum(axis=1) / 2
        return np.asarray((root(rows) - self.mean) @ (self.whitening.T @ self.centres.T) + offsets)

    def distances(self, whitened: Floats, of: NDArray[np.integer[Any]]) -> Floats:
        """Return the Mahalanobis distance float64 [n] of each whitened row to the mean of one class, by its index in `of` [n]."""
        return np.asarray(np.linalg.norm(whitened - self.centres[of], axis=1))


def fit(classes: Classes, shrinkage: float, priors: Floats | None = None) -> Classifier:
    """Return the discriminant analysis of some classes, regularised by a shrinkage s (Friedman, 1989, with one covariance).

    The covariance is (1 - s) W + s trace(W) / d I, W being the scatter within the classes divided by n, not n - c. The prior
    is uniform unless `priors` [c] says otherwise: scikit-learn's default is the classes' shares of the rows.

    Raises:
        ValueError: s is not from 0 to 1, a prior is not above 0, the priors do not sum to 1, or there are fewer than two classes.
            Or a value is not finite, no class has a spread, or the covariance is singular.
    """
    log_priors = _log_priors(len(classes.names), priors)
    factor = _factor(_covariance(classes, shrinkage), shrinkage)
    mean = classes.means.mean(axis=0)
    whitening = _inverse_of_lower(factor)
    return Classifier(classes.names, mean, whitening, (classes.means - mean) @ whitening.T, log_priors)


def _log_priors(count: int, priors: Floats | None) -> Floats:
    if count < 2:
        raise ValueError(f"{count} class(es): a classifier tells at least two apart, so label more images")
    if priors is None:
        return np.full(count, -np.log(count))
    if priors.shape != (count,) or not (priors > 0).all() or abs(float(priors.sum()) - 1) > 1e-9:
        raise ValueError(f"priors {priors} are not {count} numbers above 0 that sum up to 1")
    return np.log(priors)


def _covariance(classes: Classes, shrinkage: float) -> Floats:
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"the shrinkage {shrinkage} is not of 0 to 1")
    if not (np.isfinite(classes.scatter).all() and np.isfinite(classes.means).all()):
        raise ValueError(f"the class moments of {classes.n} rows hold NaN or infinity: audit the rows they were made of")
    total = float(np.trace(classes.scatter))
    if total <= noise_floor(classes.n, np.abs(classes.means).max(axis=0)):
        raise ValueError(f"the images of each of {len(classes.names)} classes are all alike: a fit needs a spread within classes")
    covariance = classes.scatter * ((1 - shrinkage) / classes.n)
    covariance[np.diag_indices_from(covariance)] += shrinkage * total / classes.n / classes.dimension
    return covariance


def _factor(covariance: Floats, shrinkage: float) -> Floats:
    """Return the Cholesky factor of a covariance whose smallest pivot is above its largest times the rounding."""
    why = f"the covariance is singular at the shrinkage {shrinkage}: take a larger one"
    try:
        factor: Floats = np.linalg.cholesky(covariance).astype(np.float64)
    except np.linalg.LinAlgError as error:
        raise ValueError(why) from error
    pivots = np.square(np.diagonal(factor))
    if pivots.min() <= len(pivots) * EPSILON * pivots.max():
        raise ValueError(why)
    return factor


def _inverse_of_lower(factor: Floats) -> Floats:
    """Return the inverse of a lower triangular matrix, by halves: a third of the steps of a general inverse."""
    half = len(factor) // 2
    if half < _SMALL:
        return np.tril(np.linalg.inv(factor))
    inverse = np.zeros_like(factor)
    inverse[:half, :half] = _inverse_of_lower(factor[:half, :half])
    inverse[half:, half:] = _inverse_of_lower(factor[half:, half:])
    inverse[half:, :half] = -inverse[half:, half:] @ factor[half:, :half] @ inverse[:half, :half]
    return inverse
