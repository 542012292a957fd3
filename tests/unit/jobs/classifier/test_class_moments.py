"""Class moments against a 50-digit reference, merges in every order, and labels put together to classes."""

from collections.abc import Iterable

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchard_jobs.classifier.class_moments import ClassMoments, merge, merge_all, root
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.scatter import unpack
from support.labelled_samples import DIMENSION, Labelled, labelled

COUNTS = {"apple": 17, "pear": 9, "plum": 31}


def exact_mean(roots: list[list[mpmath.mpf]]) -> list[mpmath.mpf]:
    return [mpmath.fsum(column) / len(roots) for column in zip(*roots, strict=True)]


def reference(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Return the means and the pooled scatter, summed in 50 digits from the features as they are."""
    with mpmath.workdps(50):
        means, scatter = [], mpmath.zeros(DIMENSION)
        for label in sorted(set(data.labels)):
            roots = [[mpmath.sqrt(mpmath.mpf(float(value))) for value in row] for row in data.rows[data.labels == label]]
            means.append(exact_mean(roots))
            for row in roots:
                step = mpmath.matrix([value - mean for value, mean in zip(row, means[-1], strict=True)])
                scatter += step * step.T
        return np.array(means, dtype=float), np.array(scatter.tolist(), dtype=float)


def scatter_of(moments: ClassMoments) -> np.ndarray:
    return unpack(moments.upper_triangle, moments.dimension)


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def batches_of(data: Labelled, count: int) -> list[ClassMoments]:
    return [data.take(part).moments for part in np.array_split(np.arange(len(data.labels)), count)]


# The root of a feature is rounded once, relative to itself: at a mean of 1e3 that is 1e-13 of a spread of 1.
@pytest.mark.parametrize(("mean", "most"), [(3.0, 1e-13), (1e3, 1e-12), (1e6, 1e-9)])
@pytest.mark.parametrize("batches", [1, 7, 57])
def test_class_moments_agree_with_fifty_digits(mean: float, most: float, batches: int) -> None:
    data = labelled(COUNTS, mean)
    found, (means, scatter) = merge_all(batches_of(data, batches)), reference(data)
    assert dict(zip(found.labels, found.counts, strict=True)) == COUNTS
    np.testing.assert_allclose(found.means, means, rtol=1e-14)
    assert relative_error(scatter_of(found), scatter) < most


def test_float32_features_are_summed_in_float64() -> None:
    data = labelled(COUNTS, 30.0)
    single = Labelled(data.rows.astype(np.float32), data.labels)
    assert relative_error(scatter_of(single.moments), reference(single)[1]) < 1e-12


def test_a_feature_below_zero_counts_as_zero_and_nan_stays() -> None:
    np.testing.assert_array_equal(root(np.array([[-4.0, 0.0, 9.0, np.nan]], np.float32)), [[0, 0, 3, np.nan]])


def test_a_merge_does_not_depend_on_its_sides() -> None:
    a, b = labelled({"apple": 4, "pear": 6}, 9.0, seed=1).moments, labelled({"pear": 11, "plum": 2}, 7.0, seed=2).moments
    one, other = merge(a, b), merge(b, a)
    assert one.labels == other.labels == ("apple", "pear", "plum")
    np.testing.assert_array_equal(one.means, other.means)
    np.testing.assert_array_equal(one.upper_triangle, other.upper_triangle)


def test_labels_on_one_side_alone_add_no_scatter() -> None:
    a, b = labelled({"apple": 5}, seed=1).moments, labelled({"pear": 5}, 90.0, seed=2).moments
    np.testing.assert_array_equal(merge(a, b).upper_triangle, a.upper_triangle + b.upper_triangle)


@given(
    count=st.integers(1, 9),
    mean=st.sampled_from([3.0, 30.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_batches_left_in_any_order_agree_with_one_pass(count: int, mean: float, seed: int, data: st.DataObject) -> None:
    """Some batches are removed: what is left is merged anew."""
    rows = labelled(COUNTS, mean, seed)
    parts = np.array_split(np.arange(len(rows.labels)), count)
    left = data.draw(st.lists(st.sampled_from(range(count)), min_size=1, unique=True))
    merged = merge_all(rows.take(parts[index]).moments for index in left)
    once = rows.take(np.concatenate([parts[index] for index in left])).moments
    assert merged.labels == once.labels
    np.testing.assert_array_equal(merged.counts, once.counts)
    np.testing.assert_allclose(merged.means, once.means, rtol=1e-13)
    tolerance = 1e-11 * np.linalg.norm(scatter_of(rows.moments))
    assert np.linalg.norm(scatter_of(merged) - scatter_of(once)) <= tolerance


def test_empty_class_moments_are_neutral_whatever_their_dimension() -> None:
    some = labelled(COUNTS).moments
    for empty in (ClassMoments.empty(), ClassMoments.empty(3), ClassMoments.of(np.empty((0, 3)), [])):
        assert merge(some, empty) is some
        assert merge(empty, some) is some
    assert merge_all([]).n == 0


def test_a_class_adds_the_scatter_between_its_labels() -> None:
    data = labelled(COUNTS, 1e3)
    renamed = Labelled(data.rows, np.where(data.labels == "plum", "plum", "pome"))
    classes = classes_of(data.moments, {"apple": "pome", "pear": "pome", "plum": "plum"})
    assert (classes.names, list(classes.counts), classes.n) == (("plum", "pome"), [31, 26], 57)
    means, scatter = reference(renamed)
    np.testing.assert_allclose(classes.means, means, rtol=1e-14)
    assert relative_error(classes.scatter, scatter) < 1e-12


def test_a_label_in_no_class_leaves_its_scatter_in_the_pooled() -> None:
    data = labelled(COUNTS)
    classes = classes_of(data.moments, {"apple": "apple", "plum": "plum"})
    assert (classes.names, classes.n) == (("apple", "plum"), 57)
    np.testing.assert_array_equal(classes.scatter, scatter_of(data.moments))


def test_each_label_is_a_class_by_default() -> None:
    moments = labelled(COUNTS).moments
    classes = classes_of(moments)
    assert classes.names == moments.labels
    np.testing.assert_allclose(classes.means, moments.means, rtol=1e-15)


@pytest.mark.parametrize(
    ("rows", "labels"), [(np.zeros(4), ["apple"] * 4), (np.zeros((4, 2)), ["apple"]), (np.zeros((0, 2)), ["apple"])]
)
def test_rows_that_do_not_go_with_their_labels_are_refused(rows: np.ndarray, labels: list[str]) -> None:
    with pytest.raises(ValueError, match=f"do not go with {len(labels)} labels"):
        ClassMoments.of(rows, labels)


@pytest.mark.parametrize("labels", [("pear", "apple"), ("apple", "apple"), ("apple",)])
def test_class_moments_whose_labels_do_not_fit_are_refused(labels: Iterable[str]) -> None:
    with pytest.raises(ValueError, match="label"):
        ClassMoments(tuple(labels), np.ones(2, np.int64), np.zeros((2, 3)), np.zeros(6))


def test_class_moments_of_different_lengths_have_no_merge() -> None:
    with pytest.raises(ValueError, match="rows of 5 and of 3 values"):
        merge(labelled(COUNTS).moments, ClassMoments.of(np.ones((2, 3)), ["apple", "pear"]))
