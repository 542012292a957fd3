"""A warehouse of an earlier release has not the tables that are new in this one: all goes on, and a run creates them."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from orchard.maintenance.clean import clean
from orchard.maintenance.retire import backbones, retire_backbone
from orchard.maintenance.verify import look, verify
from orchard.reporting.status import read_status
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import TABLES
from orchard_jobs.errors import NoTableError
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, run_batch, run_model, stage_and_publish
from support.published_batches import DAYS, bucket_of, publish_backbone, publish_days

NEW = [table for table in TABLES if table.is_new]


def forget_new_tables(tables: Tables) -> None:
    for table in NEW:
        shutil.rmtree(Path(tables.warehouse.uri.removeprefix("file://")) / table.name)


@pytest.fixture
def old(tables: Tables, settings: Settings) -> Tables:
    """The tables of a release that knew no new one; its batches have been published and projected."""
    publish_backbone(tables, settings)
    forget_new_tables(tables)
    return tables


def test_there_is_a_new_table() -> None:
    assert NEW


def test_nothing_is_damaged(old: Tables) -> None:
    assert look(old, is_deep=True).damage == ()
    assert look(old, is_deep=True).tables == len(TABLES) - len(NEW)


def test_status_and_the_rows_of_a_backbone_are_shown(old: Tables, settings: Settings) -> None:
    assert read_status(old, settings, None).damage == ()
    (held,) = backbones(old)
    assert held.rows.keys().isdisjoint(table.name for table in NEW)


def test_a_cleaning_removes_what_nothing_needs(old: Tables, settings: Settings) -> None:
    clean(old, settings, datetime.now(UTC), timedelta(0))
    assert verify(old, is_deep=True) == ()


def test_the_next_run_creates_them(old: Tables, settings: Settings) -> None:
    publish_days(old, settings, DAYS[3])
    assert all(old.load(table).version >= 0 for table in NEW)
    run_model(old, settings)
    assert verify(old, is_deep=True) == ()


def test_a_run_that_the_earlier_release_planned_is_published(old: Tables, settings: Settings) -> None:
    head = plan(old, settings, DAYS[3], bucket_of(DAYS[3]))
    assert head is not None
    forget_new_tables(old)
    stage_and_publish(old, head, FakeJobs(old, bucket_of(DAYS[3])))
    assert DAYS[3] in {file.partition["batch_id"] for file in old.load(NEW[0]).files()}


def test_a_backbone_can_be_retired(old: Tables, settings: Settings) -> None:
    backbone = settings.backbone.id
    retire_backbone(old, replace(settings, backbone=backbone_named("resnet50")), backbone)
    assert backbones(old) == ()


def test_a_new_table_whose_log_was_lost_is_damage(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    root = Path(tables.warehouse.uri.removeprefix("file://"))
    shutil.rmtree(root / NEW[0].name / "_delta_log")
    assert {one.table for one in verify(tables, is_deep=False)} == {NEW[0].name}
    with pytest.raises(NoTableError):
        tables.load(NEW[0])


def test_a_new_table_that_was_seen_and_is_gone_is_damage(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert verify(tables, is_deep=True) == ()
    forget_new_tables(tables)
    assert {one.table for one in verify(tables, is_deep=False)} == {table.name for table in NEW}
