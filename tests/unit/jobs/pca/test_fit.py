"""Fits against scikit-learn, the numerical rank, and the shares of variance."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as run_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from orchard_jobs.pca.fit import Basis, Spectrum, kept_share, subspace_distance
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.scatter import Floats
from sklearn.decomposition import PCA

FEATURE_SCALES = np.geomspace(3.0, 0.05, 24)


def rows_of(n: int = 300, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(np.random.default_rng(99).normal(size=(24, 24)))
    return np.asarray((random.normal(size=(n, 24)) * FEATURE_SCALES) @ turn + 5.0)


def fitted(rows: NDArray[Any], k: int) -> Basis:
    basis = Spectrum.of(Moments.of(rows)).fit(k)
    assert basis is not None
    return basis


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 10, 24])
def test_a_fit_agrees_with_scikit_learn(k: int, dtype: type) -> None:
    rows: NDArray[Any] = rows_of().astype(dtype)
    found, exact = fitted(rows, k), PCA(k, svd_solver="covariance_eigh").fit(rows.astype(np.float64))
    signs = np.sign((found.components * exact.components_).sum(axis=1))[:, np.newaxis]
    np.testing.assert_allclose(found.components, exact.components_ * signs, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.mean, exact.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.explained_variance, exact.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(found.explained_variance_ratio, exact.explained_variance_ratio_, rtol=1e-6)


def test_components_are_orthonormal_with_their_largest_loading_positive() -> None:
    components = fitted(rows_of(), 12).components
    assert components.flags.c_contiguous
    np.testing.assert_allclose(components @ components.T, np.eye(12), atol=1e-13)
    assert all(row[np.abs(row).argmax()] > 0 for row in components)


def test_of_equally_large_loadings_the_first_is_positive() -> None:
    random = np.random.default_rng(1)
    rows = np.zeros((50, 2))
    rows[:, 0] = random.integers(-8, 9, 50)
    rows[:, 1] = -rows[:, 0]
    assert fitted(rows, 1).components[0, 0] > 0 > fitted(rows, 1).components[0, 1]


@pytest.mark.parametrize(("n", "k", "k_used"), [(300, 10, 10), (6, 10, 5), (300, 100, 24), (2, 1, 1)])
def test_k_is_capped_by_rows_and_dimension(n: int, k: int, k_used: int) -> None:
    assert fitted(rows_of(n), k).k_used == k_used


def test_there_is_no_basis_of_one_row_or_of_rows_all_alike() -> None:
    assert Spectrum.of(Moments.empty(24)).fit(5) is None
    assert Spectrum.of(Moments(3, np.zeros(24), 5 * np.eye(24)[np.triu_indices(24)])).rank == 2, (
        "three rows span no more, whatever rounding left"
    )
    assert Spectrum.of(Moments.of(rows_of(1))).fit(5) is None
    alike = np.repeat(rows_of(1), 900, axis=0)
    assert Spectrum.of(Moments.of(alike)).fit(5) is None
    assert Spectrum.of(merge_all(Moments.of(alike[: 7 * i + 1]) for i in range(40))).fit(5) is None


def test_duplicates_add_no_rank_and_two_orders_agree() -> None:
    rows = np.repeat(rows_of(10), 2, axis=0)
    shuffled = np.random.default_rng(3).permutation(rows)
    one = Spectrum.of(Moments.of_chunks(np.array_split(rows, 4))).fit(19)
    other = Spectrum.of(Moments.of_chunks(np.array_split(shuffled, 7))).fit(19)
    assert one is not None
    assert other is not None
    assert one.k_used == other.k_used == 9
    assert subspace_distance(one.components, other.components) < 1e-11


def test_a_small_variance_on_a_large_mean_keeps_its_rank() -> None:
    random = np.random.default_rng(2)
    rows = np.zeros((500, 6)) + 1e3
    rows[:, :3] += random.normal(size=(500, 3)) * [1.0, 1e-2, 1e-4]
    assert fitted(rows, 6).k_used == 3


def test_fits_on_merged_batches_span_one_space_in_any_order() -> None:
    rows = rows_of(1000)
    batches = [Moments.of(part) for part in np.array_split(rows, 9)]
    one, other = Spectrum.of(merge_all(batches)).fit(8), Spectrum.of(merge_all(reversed(batches))).fit(8)
    assert one is not None
    assert other is not None
    assert subspace_distance(one.components, other.components) < 1e-12
    assert subspace_distance(one.components, fitted(rows, 8).components) < 1e-12


def test_the_kept_share_is_the_variance_of_the_projections() -> None:
    rows, others = rows_of(), rows_of(200, seed=5) * np.linspace(0.1, 2, 24)
    basis = fitted(others, 5)
    exact = np.var(rows @ basis.components.T, axis=0).sum() / np.var(rows, axis=0).sum()
    assert kept_share(Moments.of(rows), basis.components) == pytest.approx(exact, rel=1e-12)


def test_the_best_share_is_what_a_fit_keeps() -> None:
    moments = Moments.of(rows_of())
    basis = Spectrum.of(moments).fit(7)
    assert basis is not None
    assert Spectrum.of(moments).best_share(7) == pytest.approx(basis.explained_variance_ratio.sum(), rel=1e-12)
    assert kept_share(moments, basis.components) == pytest.approx(Spectrum.of(moments).best_share(7), rel=1e-12)
    assert Spectrum.of(moments).best_share(24) == pytest.approx(1.0, abs=1e-14)


def test_the_gain_is_exactly_what_a_refit_would_keep_more() -> None:
    moments = Moments.of(rows_of())
    poor = np.eye(24)[:4]
    refit = Spectrum.of(moments).fit(4)
    assert refit is not None
    expected = kept_share(moments, refit.components) - kept_share(moments, poor)
    assert Spectrum.of(moments).gain(poor, 4) == pytest.approx(expected, rel=1e-10)
    assert Spectrum.of(moments).gain(poor, 4) > 0.3
    assert Spectrum.of(moments).gain(refit.components, 4) == pytest.approx(0.0, abs=1e-14)


def test_rows_without_variance_have_nothing_to_gain() -> None:
    alike = Moments.of(np.repeat(rows_of(1), 9, axis=0))
    assert Spectrum.of(alike).gain(np.eye(24)[:4], 4) == 0.0
    assert kept_share(alike, np.eye(24)[:4]) == Spectrum.of(alike).best_share(4) == 1.0


def test_one_decomposition_serves_fit_and_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum = Spectrum.of(Moments.of(rows_of()))
    monkeypatch.setattr(np.linalg, "eigh", None)
    basis = spectrum.fit(4)
    assert basis is not None
    assert spectrum.gain(basis.components, 4) == pytest.approx(0.0, abs=1e-14)
    assert np.diff(spectrum.eigenvalues).max() <= 0 <= spectrum.eigenvalues.min()


def test_moments_that_hold_nan_are_refused() -> None:
    rows = rows_of(5)
    rows[2, 3] = np.nan
    with pytest.raises(ValueError, match="of 5 rows holds NaN"):
        Spectrum.of(Moments.of(rows)).fit(2)


@given(share=st.floats(0.01, 0.999999), seed=st.integers(0, 99))
@run_settings(max_examples=60, deadline=None, derandomize=True)
def test_a_share_takes_the_least_components_that_keep_it(share: float, seed: int) -> None:
    moments = Moments.of(rows_of(60, seed))
    basis = Spectrum.of(moments).fit(share)
    assert basis is not None
    assert kept_share(moments, basis.components) >= share - 1e-12
    assert kept_share(moments, basis.components[:-1]) < share + 1e-12


def test_a_share_that_no_components_keep_takes_all_of_them() -> None:
    rows = np.repeat(rows_of(10), 2, axis=0)
    basis = Spectrum.of(Moments.of(rows)).fit(1 - 1e-16)
    assert basis is not None
    assert basis.k_used == 9
    assert Spectrum.of(Moments.of(rows_of(1))).fit(0.5) is None


def test_the_gain_of_a_share_is_what_is_lacking_of_it() -> None:
    moments = Moments.of(rows_of())
    refit = Spectrum.of(moments).fit(0.9)
    assert refit is not None
    assert Spectrum.of(moments).gain(refit.components, 0.9) == pytest.approx(0.0, abs=1e-14)
    poor = refit.components[:-2]
    assert Spectrum.of(moments).gain(poor, 0.9) == pytest.approx(
        kept_share(moments, refit.components) - kept_share(moments, poor), rel=1e-9
    )
    assert Spectrum.of(moments).gain(refit.components, 0.5) < 0


def rotated(angles: list[float], dimension: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return two bases that stand at these principal angles, each turned within its space."""
    random, k = np.random.default_rng(5), len(angles)
    space, _ = np.linalg.qr(random.normal(size=(dimension, dimension)))
    one = space[:k]
    other = np.cos(angles)[:, np.newaxis] * one + np.sin(angles)[:, np.newaxis] * space[k : 2 * k]
    turns = [np.linalg.qr(random.normal(size=(k, k)))[0] for _ in range(2)]
    return turns[0] @ one, turns[1] @ other


@pytest.mark.parametrize("largest", [0.0, 1e-12, 1e-9, 1e-4, 0.7, np.pi / 2])
def test_the_distance_is_the_sine_of_the_largest_angle(largest: float) -> None:
    one, other = rotated([0.0, largest / 3, largest])
    assert subspace_distance(one, other) == pytest.approx(np.sin(largest), rel=1e-3, abs=1e-14)
    assert subspace_distance(other, one) == pytest.approx(np.sin(largest), rel=1e-3, abs=1e-14)


def test_a_smaller_space_is_compared_with_its_like_in_the_larger() -> None:
    one, other = rotated([0.1, 0.2, 0.3])
    assert subspace_distance(one[:2], one) == pytest.approx(0.0, abs=1e-15)
    angle = subspace_distance(other[:1], one)
    assert angle == subspace_distance(one, other[:1]) <= subspace_distance(one, other) + 1e-15
    assert angle == pytest.approx(np.sqrt(1 - np.square(other[:1] @ one.T).sum()), rel=1e-9)
