"""Projections, and the tally of what a basis keeps of a batch."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchard_jobs.pca.coordinates import VarianceTally, project
from orchard_jobs.pca.fit import Basis, Spectrum
from orchard_jobs.pca.moments import Moments
from sklearn.decomposition import PCA


def rows_of(n: int, seed: int = 0, mean: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 10)) * np.geomspace(3, 0.1, 10) + mean


def basis_of(rows: np.ndarray, k: int = 4) -> Basis:
    basis = Spectrum.of(Moments.of(rows)).fit(k)
    assert basis is not None
    return basis


def tally_of(basis: Basis, *chunks: np.ndarray) -> VarianceTally:
    return reduce(VarianceTally.add, chunks, VarianceTally.empty(basis.mean, basis.components))


def test_a_projection_is_scikit_learns() -> None:
    rows = rows_of(200).astype(np.float32)
    basis, model = basis_of(rows), PCA(4, svd_solver="covariance_eigh").fit(rows.astype(np.float64))
    found = project(rows, basis.mean, basis.components)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.abs(found), np.abs(model.transform(rows)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)


def test_a_tally_is_about_the_batchs_own_mean() -> None:
    basis, batch = basis_of(rows_of(300)), rows_of(80, seed=4, mean=30.0)
    tally = tally_of(basis, batch)
    along = project(batch, basis.mean, basis.components)
    assert tally.total == pytest.approx(np.var(batch, axis=0).sum() * 80, rel=1e-12)
    assert tally.kept == pytest.approx(np.var(along, axis=0).sum() * 80, rel=1e-12)


@given(cuts=st.lists(st.integers(0, 60), max_size=6), mean=st.sampled_from([0.0, 1e3]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_chunks_and_merges_in_any_grouping_agree_with_one_pass(cuts: list[int], mean: float, seed: int) -> None:
    rows, basis = rows_of(60, seed, mean), basis_of(rows_of(100))
    chunks = np.split(rows, sorted(cuts))
    once, added = tally_of(basis, rows), tally_of(basis, *chunks)
    merged = reduce(VarianceTally.merge, [tally_of(basis, chunk) for chunk in reversed(chunks)])
    for tally in (added, merged):
        assert tally.n == 60
        assert (tally.total, tally.kept) == pytest.approx((once.total, once.kept), rel=1e-11)


def test_the_tally_becomes_what_a_job_reports() -> None:
    basis = basis_of(rows_of(300))
    captured = tally_of(basis, rows_of(50)).captured("pca-1", "2026-01-05", "d" * 64)
    assert (captured.model_id, captured.batch_id, captured.manifest_digest, captured.n) == ("pca-1", "2026-01-05", "d" * 64, 50)
    assert captured.share is not None
    assert 0.9 < captured.share < 1


def test_a_whole_basis_keeps_everything() -> None:
    share = tally_of(basis_of(rows_of(300), 10), rows_of(50)).captured("pca-1", "b", "m").share
    assert share == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_rows_all_alike_have_no_share(n: int) -> None:
    alike = np.full((n, 10), 1e5 / 3)
    tally = tally_of(basis_of(rows_of(30)), alike[: n // 3], alike[n // 3 :])
    assert tally.n == n
    assert tally.captured("pca-1", "b", "m").share is None
