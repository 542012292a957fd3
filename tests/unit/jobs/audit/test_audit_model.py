"""Every check of a model finds its own fault, and no other check finds it."""

from typing import Any

import numpy as np
import pytest
from orchard_jobs.audit.model_checks import MODEL_CHECKS, audit_model
from orchard_jobs.pca.fit import Spectrum
from orchard_jobs.pca.moments import Moments


def model_of(n: int = 40, k: int = 3) -> dict[str, Any]:
    rows = np.random.default_rng(0).normal(size=(n, 6)) * [5, 3, 2, 1, 0.5, 0.1]
    basis = Spectrum.of(Moments.of(rows)).fit(k)
    assert basis is not None
    return {
        "mean": basis.mean,
        "components": basis.components,
        "explained_variance": basis.explained_variance,
        "ratio": basis.explained_variance_ratio,
        "n": n,
    }


@pytest.mark.parametrize(("n", "k"), [(40, 3), (40, 6), (4, 10), (2, 1)])
def test_a_fitted_model_passes(n: int, k: int) -> None:
    verdict = audit_model(**model_of(n, k))
    assert verdict.has_passed
    assert set(verdict.passed) == set(MODEL_CHECKS)


SOUND = model_of()
FAULTS = [
    ("shapes", {"mean": np.zeros(5)}),
    ("shapes", {"n": 3}),
    ("shapes", {"ratio": SOUND["ratio"][:2]}),
    ("shapes", {"components": SOUND["components"].ravel()}),
    ("shapes", {"components": np.empty((0, 6)), "explained_variance": np.empty(0), "ratio": np.empty(0)}),
    ("finite", {"mean": np.array([0, 0, 0, 0, 0, np.nan])}),
    ("finite", {"explained_variance": np.array([np.inf, 1.0, 0.5])}),
    ("orthonormal", {"components": SOUND["components"] * 1.00001}),
    ("orthonormal", {"components": SOUND["components"][[0, 0, 1]]}),
    ("signs", {"components": -SOUND["components"]}),
    ("ordered", {"explained_variance": SOUND["explained_variance"][[1, 0, 2]]}),
    ("non_negative", {"explained_variance": np.array([2.0, 1.0, -1e-6])}),
    ("non_negative", {"ratio": np.array([0.9, 0.1, -1e-6])}),
    ("ratio_sum", {"ratio": np.array([0.9, 0.1, 1e-6])}),
]


@pytest.mark.parametrize(("check", "change"), FAULTS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAULTS)])
def test_a_fault_is_found_by_its_own_check_only(check: str, change: dict[str, Any]) -> None:
    verdict = audit_model(**(SOUND | change))
    assert {failure.check for failure in verdict.failures} == {check}


def test_every_check_has_a_fault_here() -> None:
    assert {check for check, _ in FAULTS} == set(MODEL_CHECKS)
