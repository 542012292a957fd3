"""Temperatures against draws from known probabilities, and at their bounds."""

import numpy as np
import pytest
from orchard_jobs.classifier.calibration import COLDEST, HOTTEST, fit_temperature, probabilities
from orchard_jobs.scatter import Floats


def drawn(count: int = 40_000) -> tuple[Floats, np.ndarray]:
    """Return scores [n, 4] and classes that are drawn with their softmax as the probabilities."""
    random = np.random.default_rng(7)
    scores = random.normal(scale=2.0, size=(count, 4))
    # The largest of scores with Gumbel noise is a draw from their softmax.
    return scores, (scores + random.gumbel(size=scores.shape)).argmax(axis=1)


def loss(scores: Floats, truth: np.ndarray, temperature: float) -> float:
    return -float(np.log(probabilities(scores, temperature)[np.arange(len(truth)), truth]).mean())


@pytest.mark.parametrize("factor", [0.05, 1.0, 30.0])
def test_the_factor_that_scores_are_too_large_by_is_found(factor: float) -> None:
    scores, truth = drawn()
    assert fit_temperature(scores * factor, truth) == pytest.approx(factor, rel=0.03)


def test_no_other_temperature_is_more_likely() -> None:
    scores, truth = drawn(500)
    best = fit_temperature(scores, truth)
    assert all(loss(scores, truth, best) < loss(scores, truth, best * factor) for factor in (0.5, 0.999, 1.001, 2.0))


def test_calibrated_scores_say_how_often_they_are_right() -> None:
    scores, truth = drawn()
    found = probabilities(scores * 9, fit_temperature(scores * 9, truth))
    assert found.max(axis=1).mean() == pytest.approx((found.argmax(axis=1) == truth).mean(), abs=0.01)


def test_scores_always_right_or_worse_than_chance_end_at_a_bound() -> None:
    scores = np.eye(3) + np.zeros((3, 3))
    assert fit_temperature(scores, np.arange(3)) == pytest.approx(COLDEST)
    assert fit_temperature(scores, (np.arange(3) + 1) % 3) == pytest.approx(HOTTEST)


def test_probabilities_of_huge_scores_are_finite_and_sum_up_to_1() -> None:
    found = probabilities(np.array([[1e6, 0.0, -1e6], [-1e300, -1e300, -1e300]]))
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("count", [0, 2])
def test_classes_that_do_not_go_with_the_scores_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=r"do not go with \(2,\) classes"):
        fit_temperature(np.zeros((count + (count > 0), 3)), np.zeros(2, int))
