"""Predictions of image_batches: made with the classifier that was current when the batch was planned, published before `runs`."""

from typing import Any

import pytest
from orchard.models.kinds import CLASSIFIER
from orchard.models.model import current_model
from orchard.models.recorded_evaluations import Accuracy, accuracies
from orchard.models.refit import pending_work
from orchard.models.registry import promote
from orchard.reporting.export import select
from orchard.reporting.status import read_status
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, EVALUATIONS, PREDICTIONS
from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.contract.layout import model_path
from orchard_jobs.errors import ConfigurationError, SupersededError
from support.damage import DAMAGES
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, run_batch, run_model, stage_and_publish
from support.faults import killed_after
from support.promoted_classifier import MODEL_ID as FIRST
from support.promoted_classifier import promote_classifier
from support.published_batches import DAYS

LABELS = ("apple", "pear", "plum")


def bucket_of(day: str, count: int = 12) -> dict[str, bytes]:
    labelled = {f"images/{day}/{LABELS[n % 3]}/{n}.jpg": f"{day}{n}".encode() for n in range(count)}
    return labelled | {f"images/{day}/{n}.jpg": f"{day} unlabelled {n}".encode() for n in range(2)}


def test_a_batch_is_predicted_with_the_current_classifier(tables: Tables, settings: Settings) -> None:
    promote_classifier(tables, settings)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    features = {row["image_uri"]: row for row in tables.rows(FEATURES)}
    found = {row["image_uri"]: row for row in tables.rows(PREDICTIONS, model_id=FIRST, batch_id=DAYS[0])}
    assert found.keys() == features.keys()
    for uri, row in found.items():
        assert row["manifest_digest"] == features[uri]["manifest_digest"]
        assert {row["predicted"], row["second"]} == {"plum", "pome"}
        assert not row["is_seen"]
    (evaluation,) = tables.rows(EVALUATIONS)
    assert (evaluation["rows"], evaluation["unseen_rows"], evaluation["unlabelled_rows"]) == (14, 12, 2)
    assert sum(cell["rows"] for cell in evaluation["confusion"]) == 12
    assert evaluation["unseen_right"] == sum(c["rows"] for c in evaluation["confusion"] if c["class"] == c["predicted"])


def test_projection_and_prediction_are_one_stage(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    head = plan(tables, settings, DAYS[1], bucket_of(DAYS[1]))
    assert head is not None
    assert (head.models, PlannedJobs.of_batch(tables.warehouse, head).stages) == ((), ("featurize",))
    promote_classifier(tables, settings)
    model_id = run_model(tables, settings).model_id
    head = plan(tables, settings, DAYS[1], bucket_of(DAYS[1]))
    assert head is not None
    assert [one.model_id for one in head.models] == [model_id, FIRST]
    assert PlannedJobs.of_batch(tables.warehouse, head).stages == ("featurize", "reduce")
    stage_and_publish(tables, head, FakeJobs(tables, bucket_of(DAYS[1])))
    counts = [len(list(tables.rows(table, batch_id=DAYS[1]))) for table in (FEATURES, PCA_FEATURES, PREDICTIONS)]
    assert counts == [14, 14, 14]


def test_a_classifier_alone_needs_no_pca_model(tables: Tables, settings: Settings) -> None:
    promote_classifier(tables, settings)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    (row,) = tables.rows(RUNS)
    assert (row["model_id"], row["pca_version"]) == (None, None)
    assert row["reduce_seconds"] is not None
    assert list(tables.rows(PCA_FEATURES)) == []


def test_images_of_the_classifiers_own_batches_are_seen(tables: Tables, settings: Settings) -> None:
    promote_classifier(tables, settings, FIRST, DAYS[0])
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert all(row["is_seen"] for row in tables.rows(PREDICTIONS))
    (evaluation,) = tables.rows(EVALUATIONS)
    assert (evaluation["unseen_rows"], evaluation["seen_rows"], evaluation["unseen_score"]) == (0, 12, None)


def test_a_kept_image_of_an_earlier_version_is_seen(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 9))
    promote_classifier(tables, settings)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 12))
    seen = {row["image_uri"]: row["is_seen"] for row in tables.rows(PREDICTIONS)}
    assert sum(seen.values()) == 9 + 2


@pytest.mark.parametrize("commits", range(7))
def test_an_evaluation_is_recorded_once_wherever_a_publish_is_cut_off(
    tables: Tables, settings: Settings, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_classifier(tables, settings)
    head = plan(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket_of(DAYS[0])))
    stage_and_publish(tables, head, FakeJobs(tables, bucket_of(DAYS[0])))
    assert len(list(tables.rows(PREDICTIONS))) == 14
    assert len(list(tables.rows(EVALUATIONS))) == len(list(tables.rows(RUNS))) == 1


def test_predictions_are_committed_before_the_row_of_the_run(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_classifier(tables, settings)
    real, committed = Tables.commit, list[Table]()

    def commit(self: Tables, table: Table, *rest: Any, **options: Any) -> Any:
        committed.append(table)
        return real(self, table, *rest, **options)

    monkeypatch.setattr(Tables, "commit", commit)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    places = [committed.index(table) for table in (QUARANTINE, FEATURES, EVALUATIONS, PREDICTIONS, RUNS, CLASS_MOMENTS)]
    assert places == sorted(places)


def test_an_older_version_does_not_replace_predictions_of_a_newer_one(tables: Tables, settings: Settings) -> None:
    promote_classifier(tables, settings)
    old = plan(tables, settings, DAYS[0], bucket_of(DAYS[0], 6))
    assert old is not None
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 12))
    with pytest.raises(SupersededError):
        stage_and_publish(tables, old, FakeJobs(tables, bucket_of(DAYS[0], 6)))
    assert len(list(tables.rows(PREDICTIONS))) == 14


def test_a_plan_with_another_classifier_is_made_anew(tables: Tables, settings: Settings) -> None:
    promote_classifier(tables, settings)
    first = plan(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert first is not None
    FakeJobs(tables, bucket_of(DAYS[0])).featurize(first)
    assert plan(tables, settings, DAYS[0], bucket_of(DAYS[0])) == first
    tables.warehouse.delete(model_path(FIRST, CLASSIFIER.models))
    other = plan(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert other is not None
    assert (other.classifier, other.number) == (None, first.number)
    assert other.digest != first.digest


def test_a_damaged_classifier_stops_no_batch(tables: Tables, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    promote_classifier(tables, settings)
    DAMAGES["cut"](tables.warehouse, model_path(FIRST, CLASSIFIER.models))
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert len(list(tables.rows(FEATURES))) == 14
    assert list(tables.rows(PREDICTIONS)) == []
    assert "without a model of kind classifier" in caplog.text


def test_status_shows_how_right_predictions_are(tables: Tables, settings: Settings) -> None:
    promote_classifier(tables, settings)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    unlabelled = {f"images/{DAYS[1]}/{n}.jpg": f"x {n}".encode() for n in range(9)}
    run_batch(tables, settings, DAYS[1], unlabelled)
    first, second = read_status(tables, settings, None).batches
    rows = {row["batch_id"]: row for row in tables.rows(EVALUATIONS)}
    assert first.accuracy == Accuracy(rows[DAYS[0]]["unseen_right"] / 12, is_estimate=False)
    assert second.accuracy == Accuracy(rows[DAYS[1]]["unlabelled_score"], is_estimate=True)
    scores = [row["score"] for row in tables.rows(PREDICTIONS, batch_id=DAYS[1])]
    assert second.accuracy.share == pytest.approx(sum(scores) / 9)
    assert second.accuracy.to_text().startswith("~")
    assert set(accuracies(tables)) == {(day, rows[day]["manifest_digest"]) for day in DAYS[:2]}


def test_a_fitted_classifier_predicts_every_published_batch(tables: Tables, settings: Settings) -> None:
    for day in DAYS[:2]:
        run_batch(tables, settings, day, bucket_of(day, 24))
    model_id = run_model(tables, settings, "fit", CLASSIFIER).model_id
    assert model_id is not None
    features = {(row["image_uri"], row["manifest_digest"]) for row in tables.rows(FEATURES)}
    assert {(row["image_uri"], row["manifest_digest"]) for row in tables.rows(PREDICTIONS, model_id=model_id)} == features
    found = {row["batch_id"]: row for row in tables.rows(EVALUATIONS)}
    assert [(found[day]["rows"], found[day]["unseen_rows"], found[day]["seen_rows"]) for day in DAYS[:2]] == [(26, 0, 24)] * 2
    assert pending_work(tables, settings, CLASSIFIER) is None
    run_batch(tables, settings, DAYS[2], bucket_of(DAYS[2], 3))
    (new,) = (row for row in tables.rows(EVALUATIONS) if row["batch_id"] == DAYS[2])
    assert (new["model_id"], new["unseen_rows"], new["seen_rows"]) == (model_id, 3, 0)


def test_a_batch_that_was_not_predicted_is_predicted_by_the_next_run(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    promote_classifier(tables, settings)
    promote(tables, settings, FIRST)
    assert run_model(tables, settings, "predict", CLASSIFIER).action == "keep"
    assert len(list(tables.rows(PREDICTIONS, model_id=FIRST))) == 14
    assert run_model(tables, settings, "again", CLASSIFIER).action == "idle"


def test_predictions_are_exported_by_classifier(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    with pytest.raises(ConfigurationError, match="no model of kind classifier .* run classifier_model first"):
        select(tables, settings, PREDICTIONS, None, None)
    promote_classifier(tables, settings)
    run_batch(tables, settings, DAYS[1], bucket_of(DAYS[1]))
    for chosen in (None, FIRST[:7]):
        found = select(tables, settings, PREDICTIONS, None, chosen)
        assert sum(file.rows for file in found.files) == 14
        assert found.left_out == (DAYS[0],)


def test_a_batch_without_a_classifier_is_as_before(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert current_model(tables, settings.backbone.id, CLASSIFIER) is None
    (batch,) = read_status(tables, settings, None).batches
    assert batch.accuracy is None
    assert list(tables.rows(EVALUATIONS)) == []
