"""What a person chooses of the models: going back to one holds it, a pinned one gets every batch, and rivals end right."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from orchard.models.captured import captured_shares
from orchard.models.kinds import PCA, Kind
from orchard.models.model import current_promotion, known_model, pinned_models, read_model
from orchard.models.publish import publish_model
from orchard.models.refit import pending_work, plan_model
from orchard.models.registry import pin, promote, release, unpin
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.columns import CAPTURED, MODEL_RUNS, PCA_FEATURES, PINS, PROMOTIONS
from orchard_jobs.errors import ConfigurationError, SupersededError
from support.changed_settings import with_variables
from support.fake_jobs import FakeJobs
from support.faked_flow import project_model, publish_projected, rows, run_batch, run_model
from support.faults import killed_after
from support.published_batches import DAYS, bucket_of, images_of, publish_days, publish_unreduced, published_images


def promotions(tables: Tables) -> list[dict[str, object]]:
    return sorted(tables.rows(PROMOTIONS), key=lambda row: row["sequence"])


def current_model(tables: Tables, settings: Settings) -> str:
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    return promotion.model_id


def sine_of_largest_angle(tables: Tables, one: str, other: str) -> float:
    """By the complement's projection, a road that the product does not take."""
    w, v = (read_model(tables.warehouse, model_id).basis.components for model_id in (one, other))
    _, _, whole = np.linalg.svd(v)
    return float(np.linalg.svd(w @ whole[len(v) :].T, compute_uv=False).max())


def test_a_refit_is_promoted_with_its_gain_and_distance(tables: Tables, models: tuple[str, str]) -> None:
    first, second = promotions(tables)
    assert (first["gain"], first["distance"], first["is_held"]) == (None, None, False)
    assert second["gain"] == max(row["gain"] or 0.0 for row in tables.rows(MODEL_RUNS))
    assert second["distance"] == pytest.approx(sine_of_largest_angle(tables, *models), abs=1e-12)
    assert second["predecessor"] == models[0]


def test_going_back_holds_the_model_until_it_is_released(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    old, new = models
    assert promote(tables, always, old)
    row = promotions(tables)[-1]
    assert (row["model_id"], row["predecessor"], row["gain"], row["is_held"]) == (old, new, None, True)
    assert row["distance"] == pytest.approx(sine_of_largest_angle(tables, old, new), abs=1e-12)
    publish_days(tables, always, DAYS[2])
    run_model(tables, always, "held")
    assert current_model(tables, always) == old
    assert pending_work(tables, always) is None
    assert release(tables, always)
    assert (current_model(tables, always), promotions(tables)[-1]["distance"]) == (old, 0.0)
    assert pending_work(tables, always) == "the 3 published batches were not yet judged together"
    assert run_model(tables, always, "released").action == "fit"
    assert current_model(tables, always) not in models


def test_a_held_model_is_not_refitted_for_other_components(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    promote(tables, always, models[0])
    fewer = with_variables(always, ORCHARD_COMPONENTS=2)
    assert pending_work(tables, fewer) is None
    assert plan_model(tables, fewer).action == "idle"


def test_a_model_that_is_gone_back_to_is_given_what_it_lacks(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    publish_days(tables, always, DAYS[2])
    promote(tables, always, models[0])
    assert pending_work(tables, always) == "the current model lacks 1 of 3 batches"
    decided = run_model(tables, always, "back")
    assert (decided.action, decided.reason) == ("keep", "the current model is held")
    assert images_of(tables, models[0]) == published_images(tables)


def test_a_choice_that_is_made_twice_is_recorded_once(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    assert promote(tables, always, models[1])  # current already, but not held
    before = rows(tables, PROMOTIONS)
    assert not promote(tables, always, models[1])
    assert rows(tables, PROMOTIONS) == before
    assert release(tables, always)
    assert not release(tables, always)
    assert [pin(tables, always, models[0]), pin(tables, always, models[0])] == [True, False]
    assert [unpin(tables, always, models[0]), unpin(tables, always, models[0])] == [True, False]
    assert len(rows(tables, PINS)) == 2


@pytest.mark.parametrize("choose", [promote, pin, unpin])
def test_a_model_that_is_not_there_is_refused(tables: Tables, always: Settings, models: tuple[str, str], choose: object) -> None:
    assert callable(choose)
    for text in ("pca-0", "", "x"):
        with pytest.raises(ConfigurationError, match="no model has the id"):
            choose(tables, always, text)
    with pytest.raises(ConfigurationError, match="2 models have ids that begin with"):
        choose(tables, always, "pca-")


def test_a_unique_beginning_of_an_id_is_enough(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    lengths = range(len("pca-") + 1, len(models[0]) + 1)
    texts = [models[0][:length] for length in lengths if not models[1].startswith(models[0][:length])]
    assert {known_model(tables, always.backbone.id, text) for text in texts} == {(models[0], PCA)}


def test_a_model_of_another_backbone_is_refused(
    tables: Tables, always: Settings, models: tuple[str, str], backbone: Backbone
) -> None:
    other = replace(always, backbone=replace(backbone, engine="tensorflow"))
    with pytest.raises(ConfigurationError, match=f"features of {backbone.id}, the current backbone is"):
        promote(tables, other, models[0])
    with pytest.raises(ConfigurationError, match="no model yet"):
        release(tables, other)


def test_a_person_outruns_a_running_refit(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    publish_days(tables, always, DAYS[2])
    decided = plan_model(tables, always)
    assert decided.action == "fit"
    assert decided.projection is not None
    report = FakeJobs(tables, {}).project(decided.projection)
    promote(tables, always, models[0])
    with pytest.raises(SupersededError, match="was promoted meanwhile"):
        publish_model(tables, decided, report, "slow")
    assert (current_model(tables, always), promotions(tables)[-1]["is_held"]) == (models[0], True)
    run_model(tables, always, "next")
    assert images_of(tables, models[0]) == published_images(tables)


def test_a_refit_that_is_promoted_first_is_gone_back_from(
    tables: Tables, always: Settings, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_days(tables, always, DAYS[2])
    real = current_promotion
    looks: list[str] = []

    def look_too_early(tables: Tables, backbone: str, kind: Kind) -> object:
        found = real(tables, backbone, kind)
        if not looks:
            looks.append("first")
            run_model(tables, always, "rival")
        return found

    monkeypatch.setattr("orchard.models.registry.current_promotion", look_too_early)
    assert promote(tables, always, models[0])
    *_, refit, back = promotions(tables)
    assert refit["model_id"] not in models
    assert (back["model_id"], back["predecessor"], back["is_held"]) == (models[0], refit["model_id"], True)


def test_promotions_at_once_are_made_one_after_the_other(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda model_id: promote(tables, always, model_id), [*models, *models]))
    found = promotions(tables)
    assert [row["sequence"] for row in found] == list(range(1, len(found) + 1))
    assert [row["predecessor"] for row in found] == [None, *(row["model_id"] for row in found[:-1])]
    assert found[-1]["is_held"]


def test_two_pins_at_once_both_stand(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda model_id: pin(tables, always, model_id), [*models, *models]))
    assert pinned_models(tables, always.backbone.id) == tuple(sorted(models))
    assert sorted(row["sequence"] for row in tables.rows(PINS)) == [1, 2]


def test_a_pinned_model_gets_every_batch_in_the_same_commit(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    publish_days(tables, always, DAYS[2])
    assert images_of(tables, models[0]) < published_images(tables)
    pin(tables, always, models[0])
    assert pending_work(tables, always) == f"the pinned model {models[0]} lacks 1 of 3 batches"
    version = tables.load(PCA_FEATURES).version
    decided = run_model(tables, always, "pinned")
    assert decided.action == "fit"
    assert tables.load(PCA_FEATURES).version == version + 1
    for model_id in (models[0], current_model(tables, always)):
        assert images_of(tables, model_id) == published_images(tables)
        assert {batch_id for batch_id, _ in captured_shares(tables, model_id)} == set(DAYS[:3])
    assert pending_work(tables, always) is None


def test_a_projection_takes_no_other_row_out(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    """The pairs of one commit are no rectangle: replacing models x batches would lose the current model's other batches."""
    patient = with_variables(always, ORCHARD_REFIT_GAIN=1.0)
    pin(tables, patient, models[0])
    run_model(tables, patient, "pins")
    publish_unreduced(tables, patient, DAYS[2])
    run_batch(tables, patient, DAYS[0], bucket_of(DAYS[0], 15))
    decided = run_model(tables, patient, "both")
    assert decided.projection is not None
    pairs = {(model.model_id, batch.batch_id) for model, batch in decided.projection.pairs}
    assert pairs == {(models[1], DAYS[2]), (models[0], DAYS[2]), (models[0], DAYS[0])}
    assert all(images_of(tables, model_id) == published_images(tables) for model_id in models)


def test_the_predecessor_of_a_refit_keeps_its_pin(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    pin(tables, always, models[1])
    publish_unreduced(tables, always, DAYS[2])
    assert run_model(tables, always, "refit").action == "fit"
    assert images_of(tables, models[1]) == published_images(tables)


def test_an_unpinned_model_gets_nothing_more(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    pin(tables, always, models[0])
    run_model(tables, always, "pinned")
    before = images_of(tables, models[0])
    unpin(tables, always, models[0])
    publish_days(tables, always, DAYS[2])
    run_model(tables, always, "unpinned")
    assert images_of(tables, models[0]) == before


def test_a_publish_of_several_models_that_was_cut_off_is_completed(
    tables: Tables, always: Settings, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(tables, always, models[0])
    publish_days(tables, always, DAYS[2])
    planned = project_model(tables, always)
    for commits in range(4):
        with killed_after(commits, monkeypatch):
            publish_projected(tables, planned)
    for _ in range(2):
        publish_projected(tables, planned)
    assert images_of(tables, models[0]) == images_of(tables, current_model(tables, always)) == published_images(tables)
    sources = [(row["model_id"], row["batch_id"], row["manifest_digest"]) for row in tables.rows(CAPTURED)]
    assert len(sources) == len(set(sources))
    assert len(promotions(tables)) == 3


def test_a_model_of_a_share_is_refitted_when_the_share_changes(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, *DAYS[:2])
    assert run_model(tables, with_variables(settings, ORCHARD_COMPONENTS=0.6), "share").action == "fit"
    wanted = with_variables(settings, ORCHARD_COMPONENTS=0.9, ORCHARD_REFIT_GAIN=1.0)
    decided = run_model(tables, wanted, "more")
    assert (decided.action, decided.reason) == ("fit", "the current model was not fitted with ORCHARD_COMPONENTS=0.9")
    assert decided.model_id is not None
    ratios = read_model(tables.warehouse, decided.model_id).basis.explained_variance_ratio
    assert ratios[:-1].sum() < 0.9 <= ratios.sum()
    assert decided.distance == pytest.approx(0.0, abs=1e-12)  # the smaller space lies in the larger
    assert pending_work(tables, wanted) is None


@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_release_brings_back_the_model_that_keeps_more(
    is_pinned: bool, tables: Tables, always: Settings, models: tuple[str, str]
) -> None:
    """Though it lacks nothing, so that there is nothing to project, and though it is pinned."""
    old, newest = models
    if is_pinned:
        pin(tables, always, newest)
    promote(tables, always, old)
    run_model(tables, always, "held")
    release(tables, always)
    run_model(tables, always, "released")
    assert current_model(tables, always) == newest
    assert pending_work(tables, always) is None


def test_after_a_release_a_refit_is_judged_anew(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    """With the batches that came while the model was held: that they were looked at then counts for nothing."""
    promote(tables, always, models[0])
    publish_days(tables, always, DAYS[2])
    run_model(tables, always, "held")
    assert current_model(tables, always) == models[0]
    release(tables, always)
    run_model(tables, always, "released")
    assert current_model(tables, always) not in models
    assert pending_work(tables, always) is None
