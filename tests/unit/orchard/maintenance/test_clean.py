"""clean: what is in use stays, whatever is cut off, whoever runs beside it; what nothing needs goes, reports first."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from orchard.maintenance import clean as cleaning
from orchard.maintenance.clean import KINDS, find_removals
from orchard.models.model import current_promotion
from orchard.models.refit import plan_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES, TABLES
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.contract.views import parse_views
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse
from support.changed_settings import with_variables
from support.cleaning import DAYS, WEEK, bucket_of, check_whole, clean, contents, stage_refused
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, run_batch, run_model, stage_and_publish
from support.warehouse_files import age, root_of, stored


def test_nothing_young_goes(used: Tables, settings: Settings) -> None:
    before = stored(used)
    assert clean(used, settings) == ()
    assert stored(used) == before


def test_two_rounds_remove_all_that_nothing_needs(used: Tables, settings: Settings) -> None:
    before = contents(used)
    age(used)
    first = clean(used, settings)
    assert {removal.kind for removal in first} == {"report", "plan", "scratch"}
    age(used)
    second = clean(used, settings)
    assert {removal.kind for removal in second} == {"manifest", "replaced", "staged", "note"}
    age(used)
    assert clean(used, settings) == ()
    named = {file.path for table in TABLES for file in used.load(table).files()}
    left = {path for path in stored(used) if "/_delta_log/" not in path}
    current = {row["manifest_digest"] for row in used.rows(FEATURES)}
    assert {path for path in left if not path.startswith("_work/")} == named
    assert {path.split("/")[2] for path in left - named if path.startswith("_work/manifests/")} == current
    assert all(path.startswith(("_work/manifests/", "_work/checksums/")) for path in left - named)
    check_whole(used, settings, before)


def test_without_a_retention_all_goes_at_once(used: Tables, settings: Settings) -> None:
    before = contents(used)
    kinds = [removal.kind for removal in clean(used, settings, timedelta(0))]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert set(kinds) == {"report", "plan", "manifest", "replaced", "staged", "scratch"}
    assert clean(used, settings, timedelta(0)) == ()
    check_whole(used, settings, before)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """Kill the block at the removal or note of this number."""
    done: list[tuple[Any, ...]] = []

    def counted(real: Any) -> Any:
        def call(self: Warehouse, *arguments: Any) -> None:
            if len(done) == number:
                raise Killed
            done.append(arguments)
            real(self, *arguments)

        return call

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        for name in ("delete", "rewrite"):
            patch.setattr(Warehouse, name, counted(getattr(Warehouse, name)))
        yield


@pytest.mark.parametrize("retention", [WEEK, timedelta(0)])
def test_a_kill_between_any_two_removals_harms_nothing(used: Tables, settings: Settings, retention: timedelta) -> None:
    before = contents(used)
    age(used)
    removals = find_removals(used, settings, datetime.now(UTC), retention)
    assert len(removals) > 10
    for number in range(len(removals)):
        with killed_at(number):
            clean(used, settings, retention)
        assert contents(used) == before
        assert plan(used, settings, DAYS[0], bucket_of(DAYS[0], "new")) is None
    for _ in range(2):
        clean(used, settings, retention)
        age(used)
    assert clean(used, settings, retention) == ()
    check_whole(used, settings, before)


@pytest.mark.parametrize("number", range(6))
def test_a_version_that_was_refused_is_made_anew_after_any_kill(used: Tables, settings: Settings, number: int) -> None:
    age(used)
    with killed_at(number):
        clean(used, settings, timedelta(0))
    head = stage_refused(used, settings)
    bucket = bucket_of(DAYS[1]) | {f"images/{DAYS[1]}/apple/late.jpg": b"late"}
    stage_and_publish(used, head, FakeJobs(used, bucket))
    assert {row["manifest_digest"] for row in used.rows(FEATURES, batch_id=DAYS[1])} == {head.digest}
    assert len(list(used.rows(FEATURES, batch_id=DAYS[1]))) == 7


def test_a_model_that_nobody_published_goes(used: Tables, settings: Settings) -> None:
    decided = plan_model(used, with_variables(settings, ORCHARD_COMPONENTS=1))
    assert decided.projection is not None
    for _ in range(2):
        age(used)
        clean(used, settings)
    assert used.warehouse.size(decided.projection.projections[0].model.path) is None
    assert run_model(used, with_variables(settings, ORCHARD_COMPONENTS=1), "again").action == "fit"


def test_what_orchard_did_not_write_is_left_alone(used: Tables, settings: Settings) -> None:
    foreign = ["notes.txt", "features/readme.md", "_work/mine/x.json", "other/0123456789abcdef/part.parquet"]
    for path in foreign:
        used.warehouse.create(path, b"mine")
    age(used, days=1000)
    logs = {path for path in stored(used) if "/_delta_log/" in path}
    clean(used, settings, timedelta(0))
    assert {*foreign, *logs} <= stored(used)


def test_checksums_stay_with_their_files(used: Tables, settings: Settings) -> None:
    path = used.load(FEATURES).files()[0].path
    folder, _, name = path.rpartition("/")
    used.warehouse.create(f"{folder}/.{name}.crc", b"crc")
    used.warehouse.create(f"{folder}/.gone.parquet.crc", b"crc")
    age(used)
    clean(used, settings)
    assert used.warehouse.size(f"{folder}/.{name}.crc") == 3
    assert used.warehouse.size(f"{folder}/.gone.parquet.crc") is None


def test_only_backbones_without_a_batch_go(used: Tables, settings: Settings) -> None:
    other = backbone_named("resnet50")
    for backbone in (settings.backbone, other):
        used.warehouse.create(backbone_path(backbone.id), b"onnx")
    age(used)
    assert [removal.path for removal in clean(used, settings) if removal.kind == "network"] == [backbone_path(other.id)]
    assert used.warehouse.size(backbone_path(settings.backbone.id)) == 4


def test_the_export_that_views_share_stays(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting, and after it was changed while the batch of the views is still published."""
    views = parse_views("centre:0.6,centre:0.8")
    four = replace(backbone_named("efficientnet_lite0", views=views), dimension=settings.backbone.dimension)
    export = backbone_path(four.export_id)
    assert export == backbone_path(settings.backbone.id)
    with_views = replace(settings, backbone=four)
    tables.warehouse.create(export, b"onnx")
    run_batch(tables, with_views, DAYS[0], bucket_of(DAYS[0]))
    for now in (with_views, replace(settings, backbone=backbone_named("resnet50"))):
        clean(tables, now, timedelta(0))
        assert tables.warehouse.size(export) == 4


@pytest.mark.parametrize("table", [table.name for table in TABLES])
def test_nothing_is_removed_while_a_table_is_missing(used: Tables, settings: Settings, table: str) -> None:
    # A new table without any file is taken for one that no run has created yet.
    used.warehouse.create(f"{table}/rows.parquet", b"")
    age(used)
    (root_of(used) / table / "_delta_log").rename(root_of(used) / "hidden")
    before = stored(used)
    with pytest.raises(JobError, match="is not a table"):
        clean(used, settings, timedelta(0))
    assert stored(used) == before


def test_rows_of_an_expired_model_go_and_then_their_files(used: Tables, settings: Settings) -> None:
    both = {row["model_id"] for row in used.rows(PCA_FEATURES)}
    promotion = current_promotion(used, settings.backbone.id)
    assert promotion is not None
    assert len(both) == 2
    cleaning.clean(used, with_variables(settings, ORCHARD_MODEL_RETENTION_DAYS=0), datetime.now(UTC), WEEK)
    assert {row["model_id"] for row in used.rows(PCA_FEATURES)} == {promotion.model_id}
    for _ in range(2):
        age(used)
        clean(used, settings)
    assert {path.split("/")[1] for path in stored(used) if path.startswith("pca_features/model_id=")} == {
        f"model_id={promotion.model_id}"
    }
