"""A log with a flipped bit is found, told in Orchard's words and mended, and so is an exported backbone."""

import shutil
from random import Random

import pytest
from orchard.maintenance.repair import repair
from orchard.maintenance.verify import look, verify
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import DeltaSnapshot
from orchard_jobs.contract.columns import FEATURES, MODELS, MOMENTS, PCA_FEATURES, QUARANTINE, RUNS, TABLES, Table
from orchard_jobs.contract.layout import BackbonePath, backbone_path
from orchard_jobs.errors import DamagedFileError
from support.damage import flip
from support.faked_flow import plan, rows, run_batch, run_model
from support.published_batches import DAYS, bucket_of, publish_days
from support.warehouse_files import root_of, stored

OWN = ("manifest_digest", "computed_in", "jobs_version")
FIRST = "_delta_log/00000000000000000000.json"


@pytest.fixture
def published(tables: Tables, settings: Settings) -> Tables:
    """Two batches and a model, all of it looked at as every week."""
    publish_days(tables, settings, *DAYS[:2])
    run_model(tables, settings)
    verify(tables, is_deep=True)
    return tables


def break_schema(tables: Tables, table: Table) -> str:
    """Flip the bit that leaves a line JSON, but not the schema in it."""
    path = f"{table.name}/{FIRST}"
    flip(tables.warehouse, path, 8 * (tables.warehouse.read(path).index(b'nullable\\":') + len(b'nullable\\"')))
    return path


def shown(tables: Tables) -> list[list[dict[str, object]]]:
    return [rows(tables, table, *OWN) for table in (FEATURES, QUARANTINE)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_flipped_bit_in_any_log_is_found_and_mended(published: Tables, settings: Settings, table: Table) -> None:
    before, random = shown(published), Random(table.name)
    path = random.choice(sorted(path for path in stored(published) if path.startswith(f"{table.name}/_delta_log/")))
    flip(published.warehouse, path, random.randrange(8 * len(published.warehouse.read(path))))
    assert {one.path for one in verify(published, is_deep=True)} == {path}
    repair(published, settings, is_dry=False)
    assert verify(published, is_deep=True) == ()
    for day in DAYS[:2]:
        run_batch(published, settings, day, bucket_of(day))
    assert shown(published) == before


@pytest.mark.parametrize("table", [FEATURES, QUARANTINE, RUNS, MODELS], ids=lambda table: table.name)
def test_a_lost_last_commit_is_found_and_mended(published: Tables, settings: Settings, table: Table) -> None:
    before = shown(published)
    path = max(path for path in stored(published) if path.startswith(f"{table.name}/_delta_log/") and path.endswith(".json"))
    published.warehouse.delete(path)
    assert [(one.path, one.fault) for one in verify(published, is_deep=False)] == [(path, "is not there")]
    repair(published, settings, is_dry=False)
    assert verify(published, is_deep=True) == ()
    for day in DAYS[:2]:
        run_batch(published, settings, day, bucket_of(day))
    assert shown(published) == before


@pytest.mark.parametrize(
    ("table", "text", "changed"),
    [
        (MODELS, b"/model.parquet", b"/modal.parquet"),
        (PCA_FEATURES, b"model_id=pca-", b"modelOid=pca-"),
        (FEATURES, b'"batch_id":"20', b'"batch_id":"30'),
    ],
    ids=["models", "pca_features", "features"],
)
def test_a_log_that_names_what_no_run_wrote_is_mended(
    tables: Tables, settings: Settings, table: Table, text: bytes, changed: bytes
) -> None:
    """Nobody looked deeply before, so no SHA-256 of the log is recorded."""
    publish_days(tables, settings, *DAYS[:2])
    run_model(tables, settings)
    before = shown(tables)
    path = max(path for path in stored(tables) if path.startswith(f"{table.name}/_delta_log/") and path.endswith(".json"))
    content = tables.warehouse.read(path)
    assert text in content
    tables.warehouse.delete(path)
    tables.warehouse.create(path, content.replace(text, changed, 1))
    assert [one.path for one in verify(tables, is_deep=True)] == [path]
    repair(tables, settings, is_dry=False)
    assert verify(tables, is_deep=True) == ()
    for day in DAYS[:2]:
        run_batch(tables, settings, day, bucket_of(day))
    assert shown(tables) == before


def test_a_broken_schema_is_told_in_plain_words(published: Tables, settings: Settings) -> None:
    path = break_schema(published, FEATURES)
    with pytest.raises(DamagedFileError, match=f"{path} cannot be read: it was cut or changed: .*`orchard repair`") as raised:
        plan(published, settings, DAYS[0], bucket_of(DAYS[0]))
    assert "Kernel" not in str(raised.value)


@pytest.mark.parametrize("is_deep", [False, True])
def test_a_broken_schema_is_found_by_each_look(published: Tables, is_deep: bool) -> None:
    path = break_schema(published, MOMENTS)
    assert [(one.table, one.path) for one in verify(published, is_deep=is_deep)] == [("moments", path)]


def test_a_dry_run_says_what_a_log_begun_anew_loses(published: Tables, settings: Settings) -> None:
    break_schema(published, FEATURES)
    before = stored(published)
    said = repair(published, settings, is_dry=True)
    assert stored(published) == before
    assert any("no longer listed" in one for one in said.lost)
    assert said == repair(published, settings, is_dry=False)


def test_a_damaged_commit_before_a_checkpoint_costs_no_rows(published: Tables, settings: Settings) -> None:
    before, snapshot = shown(published), published.load(FEATURES)
    assert isinstance(snapshot, DeltaSnapshot)
    snapshot.delta.create_checkpoint()
    break_schema(published, FEATURES)
    assert repair(published, settings, is_dry=False).lost == ()
    assert verify(published, is_deep=True) == ()
    assert shown(published) == before


def test_a_lost_warehouse_is_no_sound_one(published: Tables) -> None:
    shutil.rmtree(root_of(published))
    found = look(published, is_deep=True)
    assert (found.tables, {one.table for one in found.damage}) == (0, {table.name for table in TABLES if not table.is_new})


def test_a_changed_export_is_found_and_removed(published: Tables, settings: Settings) -> None:
    path, digest = backbone_path(settings.backbone.id), str(BackbonePath(settings.backbone.id, "sha256"))
    published.warehouse.create(path, b"an exported backbone")
    published.warehouse.create(digest, published.warehouse.sha256(path).encode())
    assert verify(published, is_deep=True) == ()
    flip(published.warehouse, path)
    assert [one.path for one in verify(published, is_deep=True)] == [path]
    repair(published, settings, is_dry=False)
    assert stored(published).isdisjoint({path, digest})
