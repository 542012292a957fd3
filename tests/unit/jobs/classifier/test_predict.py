"""Predictions: the likeliest classes with calibrated scores, ties by name, and the distance that tells what is none of them."""

from dataclasses import replace

import numpy as np
import pytest
from orchard_jobs.classifier.calibration import fit_temperature, probabilities
from orchard_jobs.classifier.class_moments import root
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.predict import predict
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier
from support.labelled_samples import labelled

DATA = labelled({"apple": 40, "pear": 30, "plum": 20, "quince": 25}, seed=3)
CLASSES = classes_of(DATA.moments)
STORED = StoredClassifier(
    model_id="lda-0123456789abcdef",
    backbone="backbone",
    classifier=fit(CLASSES, 0.1),
    n=115,
    shrinkage=0.1,
    temperature=1.5,
    max_distance=3.0,
    class_of={label: label for label in CLASSES.names},
    left_out={},
    sources=(),
    held_out=HeldOut("contents", 5, 115, 100),
)


def test_classes_are_ranked_by_their_calibrated_probabilities() -> None:
    own = STORED.classifier
    exact = probabilities(own.scores(own.whiten(DATA.rows)), 1.5)
    found = predict(DATA.rows, STORED)
    for row, ranked, scores in zip(exact, found.ranked, found.scores, strict=True):
        assert list(ranked) == sorted(range(4), key=lambda place: -row[place])[:3]
        np.testing.assert_array_equal(scores, row[ranked])
    assert found.names(0) == [own.classes[place] for place in exact.argmax(axis=1)]
    right = np.mean([name == label for name, label in zip(found.names(0), DATA.labels, strict=True)])
    assert right > 0.5  # of four


def test_the_distance_is_mahalanobis_to_the_mean_of_the_likeliest_class() -> None:
    covariance = CLASSES.scatter * (0.9 / CLASSES.n) + np.eye(5) * 0.1 * np.trace(CLASSES.scatter) / CLASSES.n / 5
    found = predict(DATA.rows, STORED)
    steps = root(DATA.rows) - CLASSES.means[found.ranked[:, 0]]
    exact = np.sqrt(np.einsum("ni,ij,nj->n", steps, np.linalg.inv(covariance), steps))
    np.testing.assert_allclose(found.distance, exact, rtol=1e-9)
    assert found.is_known.tolist() == (found.distance <= 3.0).tolist()
    assert 0 < found.is_known.sum() < len(DATA.rows)


def test_a_row_far_from_every_class_is_not_known() -> None:
    far = np.full((1, 5), 1e4)
    assert not predict(far, STORED).is_known[0]
    assert predict(far, replace(STORED, max_distance=1e9)).is_known[0]


def test_of_equal_scores_the_first_name_wins() -> None:
    alike = replace(STORED.classifier, centres=np.zeros((4, 5)))
    found = predict(DATA.rows[:1], replace(STORED, classifier=alike))
    assert (found.names(0), found.names(1)) == (["apple"], ["pear"])
    np.testing.assert_allclose(found.scores[0], 0.25)


def test_two_classes_give_two_ranks() -> None:
    moments = labelled({"apple": 40, "pear": 30}, seed=3).moments
    found = predict(DATA.rows, replace(STORED, classifier=fit(classes_of(moments), 0.1)))
    assert found.ranked.shape == found.scores.shape == (115, 2)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1.0)


def test_a_true_class_is_looked_for_among_the_ranked_ones() -> None:
    found = predict(DATA.rows[:3], STORED)
    last = [STORED.classifier.classes[({0, 1, 2, 3} - set(row.tolist())).pop()] for row in found.ranked]
    assert found.is_among(found.names(2)).all()
    assert not found.is_among(last).any()
    assert not found.is_among([None, None, None]).any()


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_score_estimates_the_share_that_is_right(seed: int) -> None:
    """Of images without a label, the temperature being found on other images than those of the fit."""
    counts = dict.fromkeys(("apple", "pear", "plum", "quince"), 700)
    data = labelled(counts, seed=seed)
    fitted_on, held_out, unlabelled = (data.take(np.arange(len(data.labels)) % 4 == part) for part in (0, 1, 2))
    classes = classes_of(fitted_on.moments)
    own = fit(classes, 0.1)
    truth = np.array([own.classes.index(label) for label in held_out.labels])
    temperature = fit_temperature(own.scores(own.whiten(held_out.rows)), truth)
    found = predict(unlabelled.rows, replace(STORED, classifier=own, temperature=temperature))
    right = np.mean([name == label for name, label in zip(found.names(0), unlabelled.labels, strict=True)])
    assert 0.4 < right < 0.99
    assert abs(float(found.scores[:, 0].mean()) - right) <= 0.03
