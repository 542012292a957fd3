"""Discriminant analysis against scikit-learn and 50 digits, in any order of batches, and what it refuses."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as run_settings
from hypothesis import strategies as st
from orchard_jobs.classifier.calibration import probabilities
from orchard_jobs.classifier.class_moments import ClassMoments, merge_all, root
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import Classifier, fit
from orchard_jobs.scatter import Floats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from support.labelled_samples import Labelled, labelled

UNEQUAL = {"apple": 40, "pear": 90, "plum": 23, "quince": 61}
EQUAL = dict.fromkeys(UNEQUAL, 50)
NEW = labelled(UNEQUAL, seed=0).take(np.arange(0, 214, 9))


def fitted(data: Labelled, shrinkage: float, priors: Floats | None = None) -> Classifier:
    return fit(classes_of(data.moments), shrinkage, priors)


def scores(classifier: Classifier, rows: Floats) -> Floats:
    return classifier.scores(classifier.whiten(rows))


def about_their_mean(values: Floats) -> Floats:
    """Scores without the number that is the same for all classes of a row."""
    return np.asarray(values - values.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
@pytest.mark.parametrize("shrinkage", [1e-3, 0.2, 0.9])
@pytest.mark.parametrize("counts", [UNEQUAL, EQUAL], ids=["unequal", "equal"])
def test_posteriors_agree_with_scikit_learn(counts: dict[str, int], shrinkage: float, solver: str) -> None:
    """Its covariance is weighted by the priors: the same one where these are the shares of the rows."""
    data = labelled(counts)
    priors = np.array([counts[label] for label in sorted(counts)]) / sum(counts.values())
    exact = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage, priors=priors).fit(root(data.rows), data.labels)
    found = fitted(data, shrinkage, None if counts is EQUAL else priors)
    assert found.classes == tuple(exact.classes_)
    np.testing.assert_allclose(probabilities(scores(found, NEW.rows)), exact.predict_proba(root(NEW.rows)), rtol=0, atol=1e-8)
    decision = exact.decision_function(root(NEW.rows))
    np.testing.assert_allclose(about_their_mean(scores(found, NEW.rows)), about_their_mean(decision), rtol=1e-8, atol=1e-8)


def test_the_default_prior_is_uniform_whatever_the_classes_sizes() -> None:
    data = labelled(UNEQUAL)
    shares = np.array(list(UNEQUAL.values())) / len(data.labels)
    found, weighted = fitted(data, 0.1), fitted(data, 0.1, shares)
    difference = scores(weighted, NEW.rows) - scores(found, NEW.rows)
    np.testing.assert_allclose(about_their_mean(difference), about_their_mean(np.log(shares) + 0 * difference), atol=1e-12)


@pytest.mark.parametrize("shrinkage", [0.0, 0.05, 1.0])
def test_distances_are_those_of_mahalanobis_to_the_class_mean(shrinkage: float) -> None:
    data, places = labelled(UNEQUAL), np.arange(len(NEW.rows)) % 4
    y, means = root(data.rows), np.array([root(data.rows[data.labels == label]).mean(axis=0) for label in sorted(UNEQUAL)])
    centred = y - means[[sorted(UNEQUAL).index(label) for label in data.labels]]
    covariance = centred.T @ centred / len(y)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 5 * np.eye(5)
    steps = root(NEW.rows) - means[places]
    exact = np.sqrt(np.einsum("ij,ij->i", steps, np.linalg.solve(covariance, steps.T).T))
    found = fitted(data, shrinkage)
    np.testing.assert_allclose(found.distances(found.whiten(NEW.rows), places), exact, rtol=1e-10)


def scores_in_fifty_digits(data: Labelled, rows: Floats, shrinkage: float) -> Floats:
    """Return the scores at a uniform prior, from the features as they are."""
    with mpmath.workdps(50):

        def exact(of: Floats) -> list[mpmath.matrix]:
            return [mpmath.matrix([mpmath.sqrt(mpmath.mpf(float(value))) for value in row]) for row in of]

        means, scatter, size = [], mpmath.zeros(rows.shape[1]), rows.shape[1]
        for label in sorted(set(data.labels)):
            own = exact(data.rows[data.labels == label])
            means.append(sum(own[1:], own[0]) / len(own))
            for step in (row - means[-1] for row in own):
                scatter += step * step.T
        w = scatter / len(data.labels)
        spread = sum(w[i, i] for i in range(size)) / size
        inverse = ((1 - mpmath.mpf(shrinkage)) * w + mpmath.mpf(shrinkage) * spread * mpmath.eye(size)) ** -1
        found = [[-((row - mean).T * inverse * (row - mean))[0] / 2 for mean in means] for row in exact(rows)]
        return np.array([[value - sum(row) / len(row) for value in row] for row in found], dtype=float)


@pytest.mark.parametrize(("mean", "most"), [(3.0, 1e-12), (1e3, 1e-10), (1e5, 1e-8)])
def test_scores_of_data_with_a_large_mean_agree_with_fifty_digits(mean: float, most: float) -> None:
    data = labelled(UNEQUAL, mean)
    exact = scores_in_fifty_digits(data, data.rows[:20], 0.1)
    found = about_their_mean(scores(fitted(data, 0.1), data.rows[:20]))
    assert np.abs(found - exact).max() <= most * np.abs(exact).max()


@given(count=st.integers(2, 12), seed=st.integers(0, 2**32 - 1), data=st.data())
@run_settings(max_examples=60, deadline=None, derandomize=True)
def test_batches_left_in_any_order_give_the_scores_of_one_fit(count: int, seed: int, data: st.DataObject) -> None:
    """Some batches are removed: what is left is merged anew, in another order."""
    rows = labelled(UNEQUAL, 30.0, seed)
    parts = np.array_split(np.arange(len(rows.labels)), count)
    left = data.draw(st.lists(st.sampled_from(range(count)), min_size=count // 2, unique=True))
    merged = fit(classes_of(merge_all(rows.take(parts[index]).moments for index in left)), 0.05)
    once = fitted(rows.take(np.concatenate([parts[index] for index in left])), 0.05)
    assert merged.classes == once.classes
    found, exact = scores(merged, rows.rows), scores(once, rows.rows)
    assert np.abs(found - exact).max() <= 1e-9 * np.abs(exact).max()


def test_more_dimensions_than_rows_are_fitted_with_a_shrinkage() -> None:
    random = np.random.default_rng(4)
    labels = ["apple"] * 6 + ["pear"] * 6
    rows = np.square(random.normal(size=(12, 40)) + 5 + np.arange(12)[:, np.newaxis] // 6)
    classes = classes_of(ClassMoments.of(rows, labels))
    found = fit(classes, 0.2)
    assert [found.classes[index] for index in scores(found, rows).argmax(axis=1)] == labels
    with pytest.raises(ValueError, match="singular at the shrinkage 0.0"):
        fit(classes, 0.0)


@pytest.mark.parametrize("shrinkage", [0.0, 1e-17])
def test_a_feature_that_is_always_0_needs_a_shrinkage(shrinkage: float) -> None:
    """Of 1e-17 the factor exists, but its inverse would be rounding alone."""
    rows = NEW.rows * [1, 1, 0, 1, 1]
    with pytest.raises(ValueError, match=f"singular at the shrinkage {shrinkage}"):
        fitted(Labelled(rows, NEW.labels), shrinkage)
    assert np.isfinite(scores(fitted(Labelled(rows, NEW.labels), 1e-3), rows)).all()


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, float("nan")])
def test_a_shrinkage_outside_0_to_1_is_refused(shrinkage: float) -> None:
    with pytest.raises(ValueError, match=f"shrinkage {shrinkage}"):
        fitted(NEW, shrinkage)


@pytest.mark.parametrize("priors", [[0.5, 0.5], [0.5, 0.5, 0.0, 0.0], [0.3, 0.3, 0.3, 0.3], [np.nan] * 4])
def test_priors_that_are_none_are_refused(priors: list[float]) -> None:
    with pytest.raises(ValueError, match="are not 4 numbers above 0"):
        fitted(NEW, 0.1, np.array(priors))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        fitted(labelled({"apple": 30}), 0.1)


def test_classes_of_images_that_are_all_alike_are_refused() -> None:
    """The means that are merged differ by their rounding, which is no spread."""
    rows, labels = np.repeat([[0.1, 3.3], [7.7, 0.3]], 500, axis=0), ["apple"] * 500 + ["pear"] * 500
    parts = [ClassMoments.of(rows[start::7], labels[start::7]) for start in range(7)]
    with pytest.raises(ValueError, match="all alike"):
        fit(classes_of(merge_all(parts)), 0.5)


def test_class_moments_with_a_nan_are_refused() -> None:
    rows = NEW.rows.copy()
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fitted(Labelled(rows, NEW.labels), 0.1)


def test_rows_are_whitened_alike_however_many_columns_there_are() -> None:
    """Whitening goes by blocks of 256 columns."""
    random = np.random.default_rng(0)
    rows = random.random((40, 600))
    whitening = np.tril(random.normal(size=(600, 600)))
    own = Classifier(("a", "b"), random.random(600), whitening, np.zeros((2, 600)), np.zeros(2))
    np.testing.assert_allclose(own.whiten(rows), (np.sqrt(rows) - own.mean) @ whitening.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dimension", [64, 127, 128, 300, 513])
def test_whitening_is_the_inverse_of_the_covariances_factor(dimension: int) -> None:
    random = np.random.default_rng(dimension)
    rows = np.square(random.normal(2, np.geomspace(1, 1e-3, dimension), size=(400, dimension)))
    classes = classes_of(ClassMoments.of(rows, ["apple", "plum"] * 200))
    whitening = fit(classes, 0.01).whitening
    within = classes.scatter / classes.n
    covariance = 0.99 * within + 0.01 * np.trace(within) / dimension * np.eye(dimension)
    np.testing.assert_array_equal(whitening, np.tril(whitening))
    np.testing.assert_allclose(whitening @ np.linalg.cholesky(covariance), np.eye(dimension), atol=1e-12)
