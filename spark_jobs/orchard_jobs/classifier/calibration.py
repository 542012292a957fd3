"""Calibration: scores become probabilities that can be taken at their word."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.scatter import Floats

COLDEST, HOTTEST = 1e-2, 1e4
"""The bounds of a temperature: scores that are all right have none that is best, nor have scores worse than chance."""
_HALVINGS = 48


def probabilities(scores: Floats, temperature: float = 1.0) -> Floats:
    """Return the softmax float64 [n, c] of scores [n, c] divided by a temperature."""
    shifted = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(scores: Floats, truth: NDArray[np.integer[Any]]) -> float:
    """Return the temperature that makes held-out scores [n, c] most likely, given the index of each row's class [n].

    It minimises the mean negative log-likelihood of `probabilities` (Guo et al., On Calibration of Modern Neural Networks,
    2017). That is convex in 1 / temperature, so its slope has at most one zero, found by halving from `COLDEST` to `HOTTEST`.

    Raises:
        ValueError: there are no rows, or not one class for each row.
    """
    if len(scores) == 0 or truth.shape != (len(scores),):
        raise ValueError(f"scores of shape {scores.shape} do not go with {truth.shape} classes: give at least one row")
    true_scores = scores[np.arange(len(truth)), truth]
    low, high = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (probabilities(scores, float(np.exp(middle))) * scores).sum(axis=1)
        # The slope over 1 / temperature: above zero, the likelihood grows with the temperature.
        low, high = (middle, high) if (expected - true_scores).mean() > 0 else (low, middle)
    return float(np.exp((low + high) / 2))
