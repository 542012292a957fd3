"""A damaged warehouse is found, contained and repaired: for each table and kind of damage the tables end as they were."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from orchard.batch import run as batch_run
from orchard.maintenance.repair import repair
from orchard.maintenance.verify import verify
from orchard.models.model import current_promotion
from orchard.models.refit import pending_work
from orchard.models.registry import pin
from orchard.outcomes import Done
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import (
    CAPTURED,
    FEATURES,
    MODEL_RUNS,
    MODELS,
    MOMENTS,
    PCA_FEATURES,
    PINS,
    PROMOTIONS,
    QUARANTINE,
    RUNS,
    TABLES,
    Table,
)
from support.damage import DAMAGES, cut, flip, lose
from support.faked_flow import plan, rows, run_batch, run_model
from support.listed_bucket import ListedBucket
from support.promoted_classifier import promote_classifier
from support.published_batches import BUCKETS, DAYS, bucket_of, publish_backbone
from support.warehouse_files import stored

BUCKET = {key: content for of_day in BUCKETS.values() for key, content in of_day.items()}
OWN = ("manifest_digest", "computed_in", "jobs_version")
NEW = DAYS[3]
# No classifier is fitted here: its images are of one class.
FILES = [(table, damage) for table in TABLES if table is not CLASSIFIERS for damage in sorted(DAMAGES)]
LOG = "_delta_log/00000000000000000000.json"


@pytest.fixture
def published(tables: Tables, settings: Settings) -> Tables:
    """Predicted batches and their models, so that each table has a file."""
    promote_classifier(tables, settings)
    pin(tables, settings, publish_backbone(tables, settings))
    return tables


def settle(tables: Tables, settings: Settings, bucket: Mapping[str, bytes] = BUCKET) -> None:
    """Run what reconcile_uploads starts, until nothing is left to do."""
    found = batch_run.reconcile(tables, settings, ListedBucket(bucket))
    for batch_id in found.value if isinstance(found, Done) else ():
        run_batch(tables, settings, batch_id, bucket)
    for number in range(3):
        if pending_work(tables, settings):
            run_model(tables, settings, f"settle {number}")
    assert pending_work(tables, settings) is None


def shown(tables: Tables) -> dict[str, list[dict[str, Any]]]:
    """Return what users read: the rows of images without their versions, coordinates to what rounding leaves of them."""
    found = {table.name: rows(tables, table, *OWN) for table in (FEATURES, QUARANTINE)}
    coordinates = rows(tables, PCA_FEATURES, *OWN, "model_id")
    found["pca_features"] = [row | {"pca_features": [round(abs(x), 3) for x in row["pca_features"]]} for row in coordinates]
    return found


@pytest.mark.parametrize(("table", "damage"), FILES, ids=lambda one: getattr(one, "name", one))
def test_damage_is_found_contained_and_mended(published: Tables, settings: Settings, table: Table, damage: str) -> None:
    before = shown(published)
    file = published.load(table).files()[-1]
    verify(published, is_deep=True)  # the first look records what no name tells
    DAMAGES[damage](published.warehouse, file.path)
    found = verify(published, is_deep=True)
    assert [(one.table, one.path) for one in found] == [(table.name, file.path)]
    assert [one.batch_id for one in found] == [file.partition.get("batch_id", "")]
    assert plan(published, settings, NEW, bucket_of(NEW)) is not None
    repair(published, settings, is_dry=False)
    assert verify(published, is_deep=True) == ()
    settle(published, settings)
    assert shown(published) == before


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_lost_log_is_begun_anew(published: Tables, settings: Settings, table: Table) -> None:
    verify(published, is_deep=True)  # as every week
    before = shown(published)
    lose(published.warehouse, f"{table.name}/{LOG}")
    assert {one.table for one in verify(published, is_deep=False)} == {table.name}
    repair(published, settings, is_dry=False)
    assert verify(published, is_deep=True) == ()
    settle(published, settings)
    assert shown(published) == before
    assert verify(published, is_deep=True) == ()


def test_a_lost_warehouse_is_made_from_the_landing_zone(published: Tables, settings: Settings) -> None:
    before = shown(published)
    shutil.rmtree(Path(published.warehouse.uri.removeprefix("file://")))
    found = repair(published, settings, is_dry=False)
    assert any("holds, pins" in one for one in found.lost)
    settle(published, settings)
    assert shown(published) == before


def test_a_dry_run_says_what_a_repair_does_and_changes_nothing(published: Tables, settings: Settings) -> None:
    verify(published, is_deep=True)
    cut(published.warehouse, published.load(FEATURES).files()[0].path)
    before = stored(published)
    said = repair(published, settings, is_dry=True)
    assert said.batches == (DAYS[0],)
    assert stored(published) == before
    assert said == repair(published, settings, is_dry=False)


def test_a_second_repair_finds_nothing(published: Tables, settings: Settings) -> None:
    for table in (FEATURES, MOMENTS, RUNS, MODELS):
        lose(published.warehouse, published.load(table).files()[0].path)
    assert repair(published, settings, is_dry=False).mended
    assert repair(published, settings, is_dry=False).mended == ()


def test_only_the_rows_of_a_lost_file_are_computed(published: Tables, settings: Settings) -> None:
    more = {f"images/{DAYS[0]}/pear/{n}.jpg": f"pear {n}".encode() for n in range(3)}
    bucket = BUCKET | more
    lose(published.warehouse, next(file for file in published.load(FEATURES).files() if DAYS[0] in file.path).path)
    repair(published, settings, is_dry=False)
    assert len(run_batch(published, settings, DAYS[0], bucket).network_runs) == 12 + 3
    lose(published.warehouse, next(file for file in published.load(QUARANTINE).files() if DAYS[1] in file.path).path)
    repair(published, settings, is_dry=False)
    assert run_batch(published, settings, DAYS[1], bucket).network_runs == []


def test_a_lost_run_row_is_written_anew_with_its_numbers(published: Tables, settings: Settings) -> None:
    numbers = ("batch_id", "manifest_digest", "version", "listed", "featurized", "reused", "quarantined", "missing", "model_id")
    before = [{name: row[name] for name in numbers} for row in published.rows(RUNS)]
    for file in published.load(RUNS).files():
        lose(published.warehouse, file.path)
    assert repair(published, settings, is_dry=False).batches == ()
    assert sorted(before, key=repr) == sorted(({name: row[name] for name in numbers} for row in published.rows(RUNS)), key=repr)


def test_lost_moments_and_shares_are_computed_again(published: Tables, settings: Settings) -> None:
    before = {table.name: rows(published, table) for table in (MOMENTS, CAPTURED)}
    for table in (MOMENTS, CAPTURED):
        for file in published.load(table).files():
            lose(published.warehouse, file.path)
    repair(published, settings, is_dry=False)
    after = {table.name: rows(published, table) for table in (MOMENTS, CAPTURED)}
    assert [row["n"] for row in after["moments"]] == [row["n"] for row in before["moments"]]
    assert [row["captured"] for row in after["captured"]] == pytest.approx([row["captured"] for row in before["captured"]])


def test_a_lost_promotion_names_the_model_again(published: Tables, settings: Settings) -> None:
    before = current_promotion(published, settings.backbone.id)
    lose(published.warehouse, published.load(PROMOTIONS).files()[-1].path)
    assert any("held" in one for one in repair(published, settings, is_dry=False).lost)
    assert current_promotion(published, settings.backbone.id) == before


def test_pins_and_decisions_are_lost_and_told(published: Tables, settings: Settings) -> None:
    for table in (PINS, MODEL_RUNS):
        lose(published.warehouse, published.load(table).files()[0].path)
    told = repair(published, settings, is_dry=False).lost
    assert any("orchard models pin" in one for one in told)
    assert any("pca_model and classifier_model decided" in one for one in told)


def test_a_quick_look_sees_no_flipped_bit(published: Tables) -> None:
    flip(published.warehouse, published.load(FEATURES).files()[0].path)
    assert verify(published, is_deep=False) == ()
    assert len(verify(published, is_deep=True)) == 1


def test_a_file_that_a_run_replaced_and_cleaned_meanwhile_is_no_damage(
    published: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run comes between the look at the log and that at the file."""
    old = next(file.path for file in published.load(FEATURES).files() if DAYS[0] in file.path)
    real, ran = type(published.warehouse).sha256, list[str]()

    def read_after_the_run(warehouse: Any, path: str) -> str:
        if path == old and not ran:
            ran.append(path)
            run_batch(published, settings, DAYS[0], {f"images/{DAYS[0]}/kiwi/1.jpg": b"kiwi"})
            lose(published.warehouse, old)
        return str(real(warehouse, path))

    monkeypatch.setattr(type(published.warehouse), "sha256", read_after_the_run)
    assert verify(published, is_deep=True) == ()
    assert ran == [old]
