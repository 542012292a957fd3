"""Moments against a 50-digit reference, and merges in every grouping."""

import weakref
from collections.abc import Iterator
from functools import cache, reduce
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchard_jobs.pca.moments import Moments, merge, merge_all


def rows_of(n: int, dimension: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, dimension)) @ np.diag(np.linspace(0.5, 2.0, dimension)) + mean


def reference(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with mpmath.workdps(50):
        exact = [[mpmath.mpf(float(value)) for value in row] for row in rows]
        n, dimension = rows.shape
        mean = [mpmath.fsum(row[i] for row in exact) / n for i in range(dimension)]
        second = [
            [mpmath.fsum((row[i] - mean[i]) * (row[j] - mean[j]) for row in exact) for j in range(dimension)]
            for i in range(dimension)
        ]
        return np.array([float(value) for value in mean]), np.array([[float(value) for value in line] for line in second])


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("chunk", [60, 17, 1])
def test_moments_agree_with_fifty_digits_to_1e_12(mean: float, chunk: int) -> None:
    rows = rows_of(60, 5, mean)
    found = Moments.of_chunks(rows[start : start + chunk] for start in range(0, 60, chunk))
    exact_mean, exact_second = reference(rows)
    assert found.n == 60
    assert relative_error(found.second_moment, exact_second) < 1e-12
    np.testing.assert_allclose(found.mean, exact_mean, rtol=1e-14, atol=1e-15)


def test_float32_rows_are_summed_in_float64() -> None:
    rows = rows_of(200, 4, 100.0).astype(np.float32)
    _, exact = reference(rows)
    assert relative_error(Moments.of(rows).second_moment, exact) < 1e-12
    assert Moments.of(rows).mean.dtype == np.float64


def test_a_merge_does_not_depend_on_its_sides() -> None:
    a, b = Moments.of(rows_of(7, 6, 1e3)), Moments.of(rows_of(31, 6, -5.0, seed=1))
    one, other = merge(a, b), merge(b, a)
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.second_moment, other.second_moment)
    np.testing.assert_array_equal(one.second_moment, one.second_moment.T)


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(lambda sizes: sum(sizes) > 1),
    mean=st.sampled_from([0.0, 3.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_batches_merged_in_any_order_agree_with_one_pass(sizes: list[int], mean: float, seed: int, data: st.DataObject) -> None:
    rows = rows_of(sum(sizes), 4, mean, seed)
    batches = np.split(rows, np.cumsum(sizes)[:-1])
    order = data.draw(st.permutations(range(len(batches))))
    merged = merge_all(Moments.of(batches[i]) for i in order)
    once = Moments.of(rows)
    assert merged.n == once.n
    assert relative_error(merged.second_moment, once.second_moment) < 1e-12
    np.testing.assert_allclose(merged.mean, once.mean, rtol=1e-12, atol=1e-12)


def merged_along(tree: Any, leaves: list[Moments]) -> Moments:
    """Merge leaves in the shape of a nested list of their indices."""
    return reduce(merge, (merged_along(part, leaves) if isinstance(part, list) else leaves[part] for part in tree))


def shapes(count: int) -> st.SearchStrategy[list[object]]:
    """Every order of the leaves, cut into nested groups anywhere."""

    def grow(order: list[int]) -> st.SearchStrategy[list[object]]:
        if len(order) < 3:
            return st.just(list(order))
        cut = st.integers(1, len(order) - 1)
        return cut.flatmap(lambda at: st.tuples(grow(order[:at]), grow(order[at:])).map(list))

    return st.permutations(range(count)).flatmap(grow)


@given(tree=shapes(7), mean=st.sampled_from([0.0, 1.0, 1e3]), seed=st.integers(0, 9))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_tree_of_merges_of_any_shape_agrees_with_fifty_digits(tree: list[object], mean: float, seed: int) -> None:
    rows = rows_of(42, 3, mean, seed)
    leaves = [Moments.of(part) for part in np.split(rows, np.cumsum([1, 2, 12, 3, 9, 5]))]
    found, (exact_mean, exact_second) = merged_along(tree, leaves), cached_reference(mean, seed)
    assert found.n == 42
    assert relative_error(found.second_moment, exact_second) < 1e-12
    np.testing.assert_allclose(found.mean, exact_mean, rtol=1e-13, atol=1e-14)


@cache
def cached_reference(mean: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return reference(rows_of(42, 3, mean, seed))


def test_moments_of_a_mean_a_million_times_the_spread_keep_ten_digits() -> None:
    rows = rows_of(90, 4, 1e6)
    merged = merge_all(Moments.of(part) for part in np.array_split(rows, 13))
    assert relative_error(merged.second_moment, reference(rows)[1]) < 1e-10


def test_empty_moments_are_neutral_whatever_their_dimension() -> None:
    some = Moments.of(rows_of(5, 3))
    for empty in (Moments.empty(), Moments.empty(3), Moments.of(np.empty((0, 3), np.float32))):
        assert merge(some, empty) is some
        assert merge(empty, some) is some
    assert merge_all([]).n == 0
    assert merge_all([Moments.empty(3)]).n == 0


def test_equal_parts_in_equal_order_give_equal_bits() -> None:
    parts = [Moments.of(rows_of(9, 4, i, seed=i)) for i in range(7)]
    one, other = merge_all(parts), merge_all(parts)
    np.testing.assert_array_equal(one.second_moment, other.second_moment)
    assert one.n == 63


def test_a_merge_of_many_holds_no_more_than_the_logarithm() -> None:
    alive: list[weakref.ref[Moments]] = []
    most = 0

    def parts() -> Iterator[Moments]:
        nonlocal most
        for i in range(256):
            part = Moments.of(rows_of(3, 2, seed=i))
            alive.append(weakref.ref(part))
            yield part
            del part
            most = max(most, sum(reference() is not None for reference in alive))

    assert merge_all(parts()).n == 768
    assert most <= 3


def test_moments_of_different_dimensions_have_no_merge() -> None:
    with pytest.raises(ValueError, match="rows of 3 and of 4 values"):
        merge(Moments.of(rows_of(5, 3)), Moments.of(rows_of(5, 4)))


def test_the_second_moment_is_the_upper_triangle_row_by_row_and_its_mirror() -> None:
    moments = Moments(5, np.zeros(3), np.arange(6.0))
    np.testing.assert_array_equal(moments.second_moment, [[0, 1, 2], [1, 3, 4], [2, 4, 5]])
    assert moments.total == 0 + 3 + 5


def test_a_triangle_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="mean of 3 values"):
        Moments(5, np.zeros(3), np.zeros(7))


def test_rows_without_two_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4,\)"):
        Moments.of(np.zeros(4))


@pytest.mark.parametrize("value", [0.1, 1e6 / 3, 1e-20])
def test_rows_that_are_all_alike_have_no_variance(value: float) -> None:
    alike = np.full((1000, 8), value)
    assert not Moments.of(alike).has_variance
    assert not merge_all(Moments.of(alike[: 3 * i + 1]) for i in range(50)).has_variance
    alike[0, 0] *= 1 + 1e-7
    assert Moments.of(alike).has_variance
