"""A change of backbone begins a line of its own; the old one stays readable until it is retired."""

from dataclasses import replace

import pytest
from orchard.maintenance.retire import BackboneRows, backbones, retire_backbone
from orchard.models.captured import captured_shares
from orchard.models.model import current_promotion
from orchard.models.refit import pending_work
from orchard.settings import Settings
from orchard.tables.batch_versions import version_key
from orchard.tables.commit_rule import Tables, version_number_in
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.columns import CAPTURED, FEATURES, MODELS, PCA_FEATURES, QUARANTINE, RUNS
from orchard_jobs.errors import ConfigurationError
from support.faked_flow import project_model, publish_projected, rows, run_batch, run_model
from support.faults import killed_after
from support.published_batches import BUCKETS, DAYS, bucket_of
from support.published_batches import publish_backbone as publish

ROWS = (FEATURES, QUARANTINE, RUNS, PCA_FEATURES)
CALLS = 6  # of Tables.commit in one retirement: a table each, `runs` last


def of(tables: Tables, backbone: str, model_id: str) -> list[list[dict[str, object]]]:
    """Return the rows of a backbone and its model in each table, without those that tell one run from another."""
    ignored = ("published_at", "features_version", "quarantine_version", "pca_version", "manifest_digest", "computed_in")
    return [
        [row for row in rows(tables, table, *ignored) if row.get("backbone") == backbone or row.get("model_id") == model_id]
        for table in ROWS
    ]


@pytest.fixture
def later(settings: Settings) -> Settings:
    """Settings with another backbone."""
    return replace(settings, backbone=replace(settings.backbone, engine="tensorflow"))


@pytest.fixture
def two(tables: Tables, settings: Settings, later: Settings) -> tuple[str, str]:
    """Two backbones' models; the second backbone is current."""
    return publish(tables, settings), publish(tables, later)


def test_the_rows_of_two_backbones_stand_side_by_side(
    tables: Tables, later: Settings, backbone: Backbone, two: tuple[str, str]
) -> None:
    expected = {"features": 24, "quarantine": 2, "runs": 3, "pca_features": 24, "moments": 2, "class_moments": 2}
    assert backbones(tables) == tuple(BackboneRows(one, 3, expected) for one in sorted((backbone.id, later.backbone.id)))
    assert two[0] != two[1]
    assert pending_work(tables, later) is None


def test_the_current_backbone_and_an_unknown_one_are_refused(
    tables: Tables, later: Settings, backbone: Backbone, two: tuple[str, str]
) -> None:
    before = [rows(tables, table) for table in ROWS]
    with pytest.raises(ConfigurationError, match="is the current backbone"):
        retire_backbone(tables, later, later.backbone.id)
    with pytest.raises(ConfigurationError, match=f"no table has rows of backbone 'lite'.*{backbone.id}"):
        retire_backbone(tables, later, "lite")
    assert [rows(tables, table) for table in ROWS] == before


def assert_retired(tables: Tables, settings: Settings, backbone: str, two: tuple[str, str]) -> None:
    assert [one.backbone for one in backbones(tables)] == [settings.backbone.id]
    assert of(tables, backbone, two[0]) == [[], [], [], []]
    for table, scope in ((FEATURES, backbone), (QUARANTINE, backbone), (RUNS, backbone), (PCA_FEATURES, two[0])):
        held = [version_number_in(tables.load(table), version_key(scope, day)) for day in BUCKETS]
        assert held == [version_number_in(tables.load(RUNS), version_key(backbone, day)) for day in BUCKETS], table.name
        assert min(held) > 1
    assert {row["backbone"] for row in tables.rows(MODELS)} == {backbone, settings.backbone.id}


def test_a_retired_backbone_leaves_the_other_as_it_is(
    tables: Tables, later: Settings, backbone: Backbone, two: tuple[str, str]
) -> None:
    before = of(tables, later.backbone.id, two[1])
    retire_backbone(tables, later, backbone.id)
    assert_retired(tables, later, backbone.id, two)
    assert of(tables, later.backbone.id, two[1]) == before
    assert pending_work(tables, later) is None


@pytest.mark.parametrize("commits", range(CALLS))
def test_a_retirement_that_was_cut_off_is_finished_by_the_next(
    tables: Tables, later: Settings, backbone: Backbone, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    with killed_after(commits, monkeypatch):
        retire_backbone(tables, later, backbone.id)
    left = [24 if commits < 2 else 0, 2 if commits < 1 else 0, 3, 24 if commits < 3 else 0]
    assert [len(rows) for rows in of(tables, backbone.id, two[0])] == left
    assert backbone.id in [one.backbone for one in backbones(tables)]
    retire_backbone(tables, later, backbone.id)
    assert_retired(tables, later, backbone.id, two)


@pytest.mark.parametrize("commits", range(CALLS + 1))
def test_a_backbone_that_comes_back_is_computed_anew_and_alike(
    tables: Tables,
    settings: Settings,
    later: Settings,
    backbone: Backbone,
    two: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    commits: int,
) -> None:
    before = of(tables, backbone.id, two[0])[:2]
    if commits < CALLS:
        with killed_after(commits, monkeypatch):
            retire_backbone(tables, later, backbone.id)
    else:
        retire_backbone(tables, later, backbone.id)
    model_id = publish(tables, settings)
    assert of(tables, backbone.id, model_id)[:2] == before
    assert {row["batch_id"] for row in tables.rows(RUNS, backbone=backbone.id)} == set(BUCKETS)
    assert {row["image_uri"] for row in tables.rows(PCA_FEATURES, model_id=model_id)} == {
        row["image_uri"] for row in tables.rows(FEATURES, backbone=backbone.id)
    }
    assert {batch_id for batch_id, _ in captured_shares(tables, model_id)} == set(BUCKETS)
    assert len({(row["model_id"], row["batch_id"]) for row in tables.rows(CAPTURED)}) >= 6
    assert pending_work(tables, settings) is None


def test_a_backbone_that_comes_back_has_one_captured_row_a_version(
    tables: Tables, settings: Settings, later: Settings, backbone: Backbone, two: tuple[str, str]
) -> None:
    for _ in range(2):
        retire_backbone(tables, later, backbone.id)
        publish(tables, settings)
    found = [(row["model_id"], row["batch_id"], row["manifest_digest"]) for row in tables.rows(CAPTURED)]
    assert len(found) == len(set(found))
    assert pending_work(tables, settings) is None


def test_what_is_published_beside_a_retirement_holds_up_no_later_run(
    tables: Tables, settings: Settings, later: Settings, backbone: Backbone
) -> None:
    for count in (4, 5, 6):  # three versions, so that their number is high
        run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], count))
    planned = project_model(tables, settings)
    retire_backbone(tables, later, backbone.id)
    publish_projected(tables, planned, "late")
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 3))
    run_model(tables, settings)
    assert len(list(tables.rows(FEATURES))) == 3
    promotion = current_promotion(tables, backbone.id)
    assert promotion is not None
    assert len(list(tables.rows(PCA_FEATURES, model_id=promotion.model_id))) == 3
    assert pending_work(tables, settings) is None


def test_rows_of_a_model_published_beside_a_retirement_are_taken_out(
    tables: Tables, settings: Settings, later: Settings, backbone: Backbone
) -> None:
    for day in DAYS[:2]:
        run_batch(tables, settings, day, bucket_of(day))
    planned = project_model(tables, settings)
    retire_backbone(tables, later, backbone.id)  # it knows nothing of the model yet
    publish_projected(tables, planned, "late")
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    for run in ("one", "two"):
        run_model(tables, settings, run)
    assert {row["batch_id"] for row in tables.rows(PCA_FEATURES)} == {DAYS[0]}
    assert pending_work(tables, settings) is None
