"""Calibration on held-out rows that are all right: they have no best temperature."""

import numpy as np
import pytest
from orchard_jobs.classifier.held_out import NO_ROWS, HeldOutScores, calibrate
from orchard_jobs.scatter import Floats


def scored(scores: Floats, *truth: int) -> HeldOutScores:
    return HeldOutScores(NO_ROWS, scores, np.array(truth), np.arange(float(len(truth))))


@pytest.mark.parametrize(("last", "temperature"), [(0, 1.0), (1, 5.46)])
def test_rows_that_are_all_right_make_no_score_certain(last: int, temperature: float) -> None:
    """One wrong row of ten tells a temperature: with odds of 9 to 1, exp(12 / 5.46) is 9."""
    found, _ = calibrate([scored(np.array([[12.0, 0.0]] * 9), *[0] * 9), scored(np.array([[12.0, 0.0]]), last)])
    assert found == pytest.approx(temperature, rel=1e-2)


def test_of_the_distances_95_in_100_are_kept() -> None:
    _, distance = calibrate([scored(np.array([[1.0, 0.0]] * 101), *[0] * 101)])
    assert distance == 95.0
