"""pca_model beside other runs: what is published meanwhile, cut off, or published again."""

import pytest
from orchard.models.model import current_promotion
from orchard.models.publish import publish_model
from orchard.models.refit import pending_work, plan_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import CAPTURED, FEATURES, MODEL_RUNS, MODELS, PCA_FEATURES, PROMOTIONS
from orchard_jobs.errors import SupersededError
from support.changed_settings import with_variables
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, project_model, publish_projected, rows, run_batch, run_model, stage_and_publish
from support.faults import killed_after
from support.published_batches import DAYS, bucket_of, publish_days


def test_a_batch_published_meanwhile_is_taken_by_the_next_run(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, DAYS[0], DAYS[1])
    planned = project_model(tables, settings)
    run_batch(tables, settings, DAYS[1], bucket_of(DAYS[1], 15))
    publish_days(tables, settings, DAYS[2])
    publish_projected(tables, planned, "slow")
    assert pending_work(tables, settings) == "the current model lacks 2 of 3 batches"
    run_model(tables, settings, "next")
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    projected = {row["image_uri"] for row in tables.rows(PCA_FEATURES, model_id=promotion.model_id)}
    assert projected == {row["image_uri"] for row in tables.rows(FEATURES)}
    assert pending_work(tables, settings) is None


def test_a_publish_that_was_cut_off_is_completed_by_its_retry(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_days(tables, settings, *DAYS[:2])
    planned = project_model(tables, settings)
    for commits in range(4):
        with killed_after(commits, monkeypatch):
            publish_projected(tables, planned, "run")
    for _ in range(2):
        publish_projected(tables, planned, "run")
    found = [len(rows(tables, table)) for table in (MODELS, PCA_FEATURES, CAPTURED, PROMOTIONS, MODEL_RUNS)]
    assert found == [1, 24, 2, 1, 1]


def test_a_publish_that_was_cut_off_leaves_nothing_out_in_a_new_run(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = with_variables(settings, ORCHARD_REFIT_GAIN=1.0)
    publish_days(tables, kept, DAYS[0])
    head = plan(tables, kept, DAYS[1], bucket_of(DAYS[1]))  # there is no model yet
    assert head is not None
    run_model(tables, kept, "first")
    stage_and_publish(tables, head, FakeJobs(tables, bucket_of(DAYS[1])))
    planned = project_model(tables, kept)
    with killed_after(1, monkeypatch):
        publish_projected(tables, planned, "cut off")
    run_model(tables, kept, "new")
    for table in (PCA_FEATURES, CAPTURED):
        assert {row["batch_id"] for row in tables.rows(table)} == set(DAYS[:2]), table.name


def test_an_old_run_that_is_published_again_promotes_nothing(tables: Tables, settings: Settings) -> None:
    always = with_variables(settings, ORCHARD_REFIT_GAIN=0.0)
    publish_days(tables, always, DAYS[0])
    old = plan_model(tables, always)
    assert old.projection is not None
    report = FakeJobs(tables, {}).project(old.projection)
    publish_model(tables, old, report, "old")
    publish_days(tables, always, DAYS[1])
    run_model(tables, always, "new")
    before = rows(tables, PROMOTIONS)
    with pytest.raises(SupersededError, match="was promoted meanwhile"):
        publish_model(tables, old, report, "old")
    assert rows(tables, PROMOTIONS) == before
    current = current_promotion(tables, settings.backbone.id)
    assert current is not None
    assert (current.sequence, current.model_id) != (1, old.model_id)


def test_a_half_published_batch_stays_in_the_model_as_it_was(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_days(tables, settings, *DAYS[:3])
    run_model(tables, settings, "first")
    head = plan(tables, settings, DAYS[0], bucket_of(DAYS[0], 15))
    assert head is not None
    with killed_after(2, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket_of(DAYS[0], 15)))
    assert pending_work(tables, settings) is None
    assert plan_model(tables, settings).action == "idle"
