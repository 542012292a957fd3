"""A damaged file of one batch: other batches go on, its own waits, and all that meets it says so."""

import logging

import pytest
from orchard.batch import run as batch_run
from orchard.batch.plan import plan_batch
from orchard.models.refit import plan_model
from orchard.outcomes import Done, Skipped
from orchard.reporting.status import WarehouseStatus, read_status
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, MOMENTS, PROMOTIONS, QUARANTINE, RUNS, Table
from orchard_jobs.contract.layout import report_path
from orchard_jobs.errors import DamagedFileError
from support.damage import DAMAGES, file_of, lose
from support.faked_flow import plan, run_batch
from support.listed_bucket import ListedBucket, listing
from support.published_batches import BUCKETS, DAYS, bucket_of, publish_backbone

FIRST, SECOND, _, NEW, NEWER = DAYS


@pytest.fixture
def published(tables: Tables, settings: Settings) -> Tables:
    publish_backbone(tables, settings)
    return tables


@pytest.fixture(params=sorted(DAMAGES))
def damage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def damage_file(tables: Tables, table: Table, damage: str, **partition: str) -> str:
    path = file_of(tables, table, **partition).path
    DAMAGES[damage](tables.warehouse, path)
    return path


def status_of(tables: Tables, settings: Settings) -> WarehouseStatus:
    bucket = {key: content for of_day in BUCKETS.values() for key, content in of_day.items()}
    return read_status(tables, settings, ListedBucket(bucket).list)


@pytest.mark.parametrize("table", [FEATURES, QUARANTINE, RUNS, MOMENTS, PROMOTIONS], ids=lambda table: table.name)
def test_another_batch_is_planned(published: Tables, settings: Settings, table: Table, damage: str) -> None:
    damage_file(published, table, damage, **({"batch_id": SECOND} if table.partition_by else {}))
    assert run_batch(published, settings, NEW, bucket_of(NEW)).network_runs
    assert plan(published, settings, NEW, bucket_of(NEW)) is None


def test_copies_of_a_damaged_file_s_images_are_computed(
    published: Tables, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    path = damage_file(published, FEATURES, "flipped", batch_id=FIRST)
    copies = {key.replace(FIRST, NEW): content for key, content in BUCKETS[FIRST].items()}
    head = plan(published, settings, NEW, copies)
    assert head is not None
    assert head.actions == {"compute": 12}
    assert f"no vector is reused from a damaged file: {published.warehouse.uri_of(path)}" in caplog.text


def test_a_damaged_report_of_another_batch_is_no_fault(published: Tables, settings: Settings) -> None:
    reports = [file.path for file in published.warehouse.files("_work") if file.path.endswith("report.json")]
    for path in reports:
        published.warehouse.rewrite(path, b"{")
    assert report_path("0" * 64) not in reports
    assert plan(published, settings, NEW, bucket_of(NEW)) is not None


@pytest.mark.parametrize("table", [FEATURES, QUARANTINE, RUNS], ids=lambda table: table.name)
def test_the_batch_itself_waits_for_its_repair(published: Tables, settings: Settings, table: Table, damage: str) -> None:
    path = damage_file(published, table, damage, batch_id=SECOND)
    with pytest.raises(DamagedFileError, match="orchard repair") as raised:
        plan_batch(published, settings, SECOND, listing(BUCKETS[SECOND]))
    assert path in str(raised.value)


def test_a_half_read_landing_zone_never_hides_what_differs(
    published: Tables, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    damage_file(published, FEATURES, "lost", batch_id=FIRST)
    found = batch_run.reconcile(published, settings, ListedBucket(BUCKETS[FIRST] | bucket_of(NEW) | bucket_of(NEWER)))
    assert found == Done((NEW, NEWER))
    assert f"batch {FIRST} is not compared" in caplog.text


def test_a_pass_that_starts_nothing_tells_of_damage(published: Tables, settings: Settings) -> None:
    damage_file(published, FEATURES, "lost", batch_id=FIRST)
    found = batch_run.reconcile(published, settings, ListedBucket(BUCKETS[FIRST]))
    assert isinstance(found, Skipped)
    assert "1 batches are damaged" in found.reason


@pytest.mark.parametrize("table", [FEATURES, QUARANTINE, RUNS], ids=lambda table: table.name)
def test_status_names_the_damaged_batch(published: Tables, settings: Settings, table: Table, damage: str) -> None:
    path = damage_file(published, table, damage, batch_id=SECOND)
    found = status_of(published, settings)
    assert not found.is_settled
    assert [batch.batch_id for batch in found.in_state("damaged")] == [SECOND]
    assert path in found.in_state("damaged")[0].why


def test_status_tells_of_damage_to_what_no_batch_owns(published: Tables, settings: Settings) -> None:
    path = damage_file(published, PROMOTIONS, "cut")
    found = status_of(published, settings)
    assert not found.is_settled
    assert [path in one for one in found.damage] == [True]


def test_a_model_is_fitted_past_damaged_moments(
    published: Tables, settings: Settings, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage_file(published, MOMENTS, damage, batch_id=FIRST)
    run_batch(published, settings, NEW, bucket_of(NEW))
    with caplog.at_level(logging.WARNING):
        decided = plan_model(published, settings)
    assert decided.projection is not None


def test_a_batch_that_lost_its_features_is_not_projected(published: Tables, settings: Settings) -> None:
    for day in (NEW, NEWER):
        run_batch(published, settings, day, bucket_of(day))
    lose(published.warehouse, file_of(published, FEATURES, batch_id=NEW).path)
    decided = plan_model(published, settings)
    assert decided.projection is not None
    projected = {batch.batch_id for _, batch in decided.projection.pairs}
    assert NEWER in projected
    assert NEW not in projected
