"""The fit of a classifier by tasks: that of all rows at once, judged on rows that its fits had not seen."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orchard_jobs.classifier.calibration import fit_temperature
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import Classifier, fit
from orchard_jobs.classifier.held_out import FOLDS, SHRINKAGES, choose_shrinkage
from orchard_jobs.classifier.stored import StoredClassifier, read_classifier, read_merged
from orchard_jobs.contract.jobs import ClassifierFit
from orchard_jobs.errors import JobError
from orchard_jobs.stages import classifier_fit
from orchard_jobs.stages.classifier_fit import fit_classifier
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from support.labelled_samples import Labelled, labelled
from support.published_labels import PublishedLabels, content_of, shop

# It runs the tasks here, and needs no session for that.
NO_SPARK: Any = None
WORKERS = Workers(NO_SPARK, "spark")
CLASS_OF = {"gala": "apple", "fuji": "apple", "plum": "plum", "quince": "quince"}
NEW = labelled({"gala": 40, "fuji": 40, "plum": 40, "quince": 40}, seed=0).rows


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.at(str(tmp_path))


def fitted(published: PublishedLabels, plan: ClassifierFit, work: str = "a") -> tuple[StoredClassifier, dict[str, int]]:
    """Run a fit, and return its classifier and what it counted."""
    counts = fit_classifier(WORKERS, Staging(published.warehouse, OwnPaths(work * 64)), "backbone", plan)
    return read_classifier(published.warehouse, plan.model), counts


def scores(classifier: Classifier) -> np.ndarray:
    return classifier.scores(classifier.whiten(NEW))


def exact(data: Labelled, folds: np.ndarray, class_of: dict[str, str]) -> tuple[float, float, float, int]:
    """Return shrinkage, temperature, largest distance and right rows by fits of all rows at once, without any merging."""
    truth = np.array([class_of.get(label, "") for label in data.labels])

    def fit_without(fold: int, shrinkage: float) -> Classifier:
        others = data.take(np.flatnonzero(folds != fold))
        return fit(classes_of(ClassMoments.of(others.rows.astype(np.float32), list(others.labels)), class_of), shrinkage)

    def held_out(fold: int) -> np.ndarray:
        return np.flatnonzero((folds == fold) & (truth != ""))

    def found(shrinkage: float) -> list[tuple[Classifier, np.ndarray, np.ndarray]]:
        parts = [(fit_without(fold, shrinkage), held_out(fold)) for fold in sorted(set(folds))]
        return [(one, one.whiten(data.rows[rows].astype(np.float32)), rows) for one, rows in parts]

    def is_right(shrinkage: float) -> int:
        return sum(
            int((np.array(one.classes)[one.scores(white).argmax(axis=1)] == truth[rows]).sum())
            for one, white, rows in found(shrinkage)
        )

    best = max(SHRINKAGES, key=lambda shrinkage: (is_right(shrinkage), shrinkage))
    parts = found(best)
    all_scores = np.concatenate([one.scores(white) for one, white, _ in parts])
    places = np.concatenate([np.searchsorted(one.classes, truth[rows]) for one, _, rows in parts])
    distances = np.concatenate([one.distances(white, one.scores(white).argmax(axis=1)) for one, white, _ in parts])
    return best, fit_temperature(all_scores, places), float(np.quantile(distances, 0.95, method="higher")), is_right(best)


def test_held_out_batches_give_what_fits_of_all_rows_at_once_give(warehouse: Warehouse) -> None:
    published = shop(warehouse)
    found, counts = fitted(published, published.plan(CLASS_OF))
    folds = np.concatenate([np.full(len(one.labels), number) for number, one in enumerate(published.data)])
    shrinkage, temperature, distance, right = exact(published.together, folds, CLASS_OF)
    assert (found.shrinkage, found.held_out.by, found.held_out.folds) == (shrinkage, "batches", 4)
    assert (found.held_out.rows, found.held_out.right) == (720, right)
    assert counts["held_out_right"] == right
    np.testing.assert_allclose([found.temperature, found.max_distance], [temperature, distance], rtol=1e-9)
    together = published.together
    whole = fit(classes_of(ClassMoments.of(together.rows.astype(np.float32), list(together.labels)), CLASS_OF), shrinkage)
    np.testing.assert_allclose(scores(found.classifier), scores(whole), rtol=1e-9)


def test_held_out_contents_give_what_fits_of_all_rows_at_once_give(warehouse: Warehouse) -> None:
    published = shop(warehouse, days=1)
    found, _ = fitted(published, published.plan(CLASS_OF, "contents"))
    together = published.together
    folds = np.array([int(content_of(vector)[-8:], 16) % FOLDS for vector in together.rows])
    shrinkage, temperature, distance, right = exact(together, folds, CLASS_OF)
    assert (found.shrinkage, found.held_out.by, found.held_out.folds) == (shrinkage, "contents", FOLDS)
    assert (found.held_out.rows, found.held_out.right) == (180, right)
    np.testing.assert_allclose([found.temperature, found.max_distance], [temperature, distance], rtol=1e-9)


def test_any_order_and_any_parting_of_the_rows_give_one_classifier(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = shop(warehouse)
    one, _ = fitted(published, published.plan(CLASS_OF, "contents"))
    other = PublishedLabels(Warehouse.at(str(tmp_path / "other")))
    whole = published.together
    order = np.random.default_rng(5).permutation(len(whole.labels))
    for number, some in enumerate(np.array_split(order, 7)):
        other.publish(f"2026-02-0{number + 1}", whole.take(some))
    monkeypatch.setattr(classifier_fit, "_GATHERING_TASKS", 3)
    two, _ = fitted(other, other.plan(CLASS_OF, "contents"))
    assert (one.shrinkage, one.n, one.held_out) == (two.shrinkage, two.n, two.held_out)
    np.testing.assert_allclose(scores(one.classifier), scores(two.classifier), rtol=1e-9)
    np.testing.assert_allclose([one.temperature, one.max_distance], [two.temperature, two.max_distance], rtol=1e-9)


@pytest.mark.parametrize("held", [(0,), (1, 3), (0, 1, 2, 3)])
def test_class_moments_of_batches_stand_for_their_rows(warehouse: Warehouse, held: tuple[int, ...]) -> None:
    published = PublishedLabels(warehouse)
    for day, data in enumerate(shop(Warehouse.at(f"{warehouse.uri}/other")).data):
        # The first file of a batch has no label that counts.
        published.publish(
            f"2026-01-0{day + 1}", Labelled(np.vstack([data.rows[:40], data.rows]), np.append([""] * 40, data.labels))
        )
    plain, _ = fitted(published, published.plan(CLASS_OF))
    plan = replace(published.plan(CLASS_OF, name="lda-2"), class_moments=published.class_moments(*held))
    found, _ = fitted(published, plan, work="b")
    assert (found.shrinkage, found.n, found.held_out) == (plain.shrinkage, 720, plain.held_out)
    np.testing.assert_allclose(scores(found.classifier), scores(plain.classifier), rtol=1e-9)
    np.testing.assert_allclose([found.temperature, found.max_distance], [plain.temperature, plain.max_distance], rtol=1e-9)


def test_unlabelled_rows_do_not_count_at_all(warehouse: Warehouse) -> None:
    published = shop(warehouse)
    odd = labelled({"unsorted": 30, "": 20, "kiwi": 25}, seed=3)
    published.publish("2026-01-09", odd)
    found, _ = fitted(published, published.plan(CLASS_OF, unlabelled=("unsorted",)))
    moments, sources = read_merged(warehouse, published.plan(CLASS_OF).model)
    assert moments.labels == ("fuji", "gala", "kiwi", "plum", "quince")
    assert (found.n, moments.n, len(sources)) == (745, 745, 5)
    assert found.classifier.classes == ("apple", "plum", "quince")
    assert found.held_out.rows == 720


def test_a_class_that_stands_in_one_batch_alone_is_not_held_out(warehouse: Warehouse) -> None:
    published = shop(warehouse)
    published.publish("2026-01-09", labelled({"kiwi": 25}, seed=3))
    found, _ = fitted(published, published.plan(CLASS_OF | {"kiwi": "kiwi"}))
    assert "kiwi" in found.classifier.classes
    assert found.held_out.rows == 720


def test_of_many_rows_a_share_is_scored_whatever_order_they_come_in(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_fit, "SCORED_ROWS", 200)
    published = shop(warehouse)
    found, _ = fitted(published, published.plan(CLASS_OF))
    expected = sum(int(content_of(vector)[:8], 16) < 200 / 720 * 16**8 for vector in published.together.rows)
    assert found.held_out.rows == expected
    assert 150 < expected < 250
    assert found.n == 720


def test_the_current_classifier_is_asked_about_rows_that_neither_has_seen(warehouse: Warehouse) -> None:
    published = shop(warehouse, days=3)
    before = published.together
    first, counts = fitted(published, published.plan({"gala": "apple", "plum": "plum"}, name="lda-0"))
    assert [counts[name] for name in ("compared", "compared_right", "compared_right_before")] == [0, 0, 0]
    fresh = labelled({"gala": 60, "fuji": 40, "plum": 50, "quince": 30}, seed=0).take(np.arange(0, 180, 2))
    published.publish("2026-01-08", fresh)
    current = published.plan({"gala": "apple", "plum": "plum"}, name="lda-0").model
    found, counts = fitted(published, published.plan(CLASS_OF, current=current))
    known = [number for number, label in enumerate(fresh.labels) if CLASS_OF[label] in ("apple", "plum")]
    assert counts["compared"] == len(known)
    truth = [CLASS_OF[fresh.labels[number]] for number in known]
    others = ClassMoments.of(before.rows.astype(np.float32), list(before.labels))
    for name, one in (
        ("compared_right_before", first.classifier),
        ("compared_right", fit(classes_of(others, CLASS_OF), found.shrinkage)),
    ):
        best = one.scores_of(fresh.rows[known].astype(np.float32)).argmax(axis=1)
        assert counts[name] == sum(one.classes[a] == b for a, b in zip(best, truth, strict=True))


def test_a_job_that_is_run_again_keeps_the_first_file(warehouse: Warehouse) -> None:
    published = shop(warehouse)
    plan = published.plan(CLASS_OF)
    fitted(published, plan)
    before = warehouse.read(plan.model.path)
    fitted(published, plan, work="b")
    assert warehouse.read(plan.model.path) == before


def test_rows_of_one_batch_alone_cannot_be_held_out_by_batches(warehouse: Warehouse) -> None:
    published = shop(warehouse, days=1)
    with pytest.raises(JobError, match=r"180 labelled rows of 1 batches: no image could be held out"):
        fitted(published, published.plan(CLASS_OF))


def test_classes_without_a_spread_are_an_error_of_the_job(warehouse: Warehouse) -> None:
    published = PublishedLabels(warehouse)
    for day in ("2026-01-01", "2026-01-02"):
        published.publish(day, Labelled(np.repeat(np.eye(2, 5), 10, axis=0), np.repeat(["apple", "plum"], 10)))
    with pytest.raises(JobError, match="are all alike"):
        fitted(published, published.plan({"apple": "apple", "plum": "plum"}))


def test_of_equal_shrinkages_the_larger_is_chosen() -> None:
    right = [[5, 7, 6, 7, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]]
    assert choose_shrinkage(right) == SHRINKAGES[3]


def test_a_fits_plan_crosses_the_wire(warehouse: Warehouse) -> None:
    published = shop(warehouse)
    plan = replace(published.plan(CLASS_OF, current=published.plan(CLASS_OF, name="lda-0").model), left_out=(("kiwi", 3),))
    assert ClassifierFit.from_fields(json.loads(json.dumps(asdict(plan)))) == plan
