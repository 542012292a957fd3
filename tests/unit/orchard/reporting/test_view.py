"""The pages' view shows what the tables hold, is brought up to date by reading only what is new, and can be built again."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from orchard.maintenance.retire import retire_backbone
from orchard.reporting import view_refresh
from orchard.reporting.view import ViewPointer, read_pointer
from orchard.reporting.view_refresh import refresh_view
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import RUNS
from orchard_jobs.contract.layout import ViewPath
from orchard_jobs.contract.manifest import ManifestHead
from support.changed_settings import with_variables
from support.cleaning import clean
from support.damage import cut
from support.fake_jobs import BROKEN, FakeJobs
from support.faked_flow import plan, run_batch, stage_and_publish
from support.faults import killed_after
from support.published_batches import DAYS, bucket_of, publish_days
from support.shown import shown_rows, shown_states, shown_versions
from support.warehouse_files import age, stored

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIRST, SECOND, THIRD = DAYS[:3]


def refresh(tables: Tables, settings: Settings, *begun: ManifestHead, is_anew: bool = False) -> ViewPointer:
    return refresh_view(tables, settings, NOW, [head.digest for head in begun], is_anew=is_anew)


def planned(tables: Tables, settings: Settings, day: str, bucket: dict[str, bytes]) -> ManifestHead:
    head = plan(tables, settings, day, bucket)
    assert head is not None
    return head


def images_of_current(tables: Tables) -> list[str]:
    """Return the parts that list images, one a current version."""
    rows = shown_rows(tables.warehouse)
    assert all(row["is_current"] for row in rows if row["images"])
    return [row["images"] for row in rows if row["images"]]


def check_rebuilt(tables: Tables, settings: Settings) -> None:
    """A view that is built anew is the one that was brought up to date."""
    shown = shown_versions(tables.warehouse)
    refresh(tables, settings, is_anew=True)
    assert shown_versions(tables.warehouse).equals(shown)


def test_a_published_version_is_shown_as_its_runs_row(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST)
    pointer = refresh(tables, settings)
    (row,), (run,) = shown_rows(tables.warehouse), tables.rows(RUNS)
    assert {name: value for name, value in row.items() if name in run} == {name: run[name] for name in row if name in run}
    assert (row["day"], row["state"], row["why"], row["is_current"]) == (date(2026, 1, 1), "published", "", True)
    assert (pointer.backbone, pointer.age_from) == (settings.backbone.id, NOW)


def test_each_version_has_a_row_and_the_newest_is_current(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST, SECOND)
    refresh(tables, settings)
    run_batch(tables, settings, FIRST, bucket_of(FIRST, 14))
    refresh(tables, settings)
    rows = [(row["batch_id"], row["version"], row["listed"], row["is_current"]) for row in shown_rows(tables.warehouse)]
    assert rows == [(FIRST, 1, 12, False), (FIRST, 2, 14, True), (SECOND, 1, 12, True)]
    check_rebuilt(tables, settings)


def test_only_new_files_of_runs_are_read(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST, SECOND)
    refresh(tables, settings)
    publish_days(tables, settings, THIRD)
    read: list[str] = []
    rows_of = Tables.rows_of

    def remembered(self: Tables, files: Any, columns: Any = None) -> Iterator[dict[str, Any]]:
        files = list(files)
        read.extend(file.partition["batch_id"] for file in files)
        return rows_of(self, files, columns)

    with patch.object(Tables, "rows_of", remembered):
        refresh(tables, settings)
    assert read == [THIRD]
    assert set(shown_states(tables.warehouse)) == {FIRST, SECOND, THIRD}


def test_a_begun_version_is_shown_until_it_is_published(tables: Tables, settings: Settings) -> None:
    head = planned(tables, settings, FIRST, bucket_of(FIRST))
    refresh(tables, settings, head)
    (row,) = shown_rows(tables.warehouse)
    assert (row["state"], row["version"], row["listed"], row["source"]) == ("planned", None, 12, None)
    assert "has no finished featurize job" in row["why"]
    check_rebuilt(tables, settings)
    FakeJobs(tables, bucket_of(FIRST)).featurize(head)
    refresh(tables, settings)
    assert shown_states(tables.warehouse) == {FIRST: "staged"}
    stage_and_publish(tables, head, FakeJobs(tables, bucket_of(FIRST)))
    assert refresh(tables, settings).begun == ()
    assert shown_states(tables.warehouse) == {FIRST: "published"}
    check_rebuilt(tables, settings)


def test_what_the_audit_refuses_is_shown_beside_what_is_published(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST)
    bad = {f"images/{FIRST}/apple/bad{n}.jpg": BROKEN + bytes([n]) for n in range(12)}
    head = planned(tables, settings, FIRST, bucket_of(FIRST) | bad)
    FakeJobs(tables, bucket_of(FIRST) | bad).featurize(head)
    FakeJobs(tables, {}).reduce(head, FakeJobs(tables, {}).featurize(head))
    refresh(tables, settings, head)
    (row,) = shown_rows(tables.warehouse)
    assert (row["state"], row["version"], row["listed"]) == ("refused", 1, 12)
    assert row["why"].endswith("12 of 24 images are quarantined")
    check_rebuilt(tables, settings)


@pytest.mark.parametrize("commits", [1, 2])
def test_a_version_left_half_way_is_shown(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    publish_days(tables, settings, FIRST)
    for day in (FIRST, SECOND):
        head = planned(tables, settings, day, bucket_of(day, 13))
        with killed_after(commits, monkeypatch):
            stage_and_publish(tables, head, FakeJobs(tables, bucket_of(day, 13)))
        refresh(tables, settings, head)
    assert shown_states(tables.warehouse) == {FIRST: "half-way", SECOND: "half-way"}
    check_rebuilt(tables, settings)


def test_a_damaged_file_of_runs_is_shown_and_read_again_once_it_is_mended(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST, SECOND)
    (path,) = [file.path for file in tables.load(RUNS).files(batch_id=SECOND)]
    content = tables.warehouse.read(path)
    cut(tables.warehouse, path)
    refresh(tables, settings)
    assert shown_states(tables.warehouse) == {FIRST: "published", SECOND: "damaged"}
    tables.warehouse.rewrite(path, content)
    refresh(tables, settings)
    assert shown_states(tables.warehouse) == {FIRST: "published", SECOND: "published"}


@pytest.mark.parametrize("harm", [lambda path: b"{", lambda path: b"{}", lambda path: b'{"form": 0}'])
def test_a_view_that_cannot_be_read_is_built_anew(tables: Tables, settings: Settings, harm: Callable[[str], bytes]) -> None:
    publish_days(tables, settings, FIRST)
    pointer = refresh(tables, settings)
    tables.warehouse.rewrite(str(ViewPath()), harm(pointer.versions))
    refresh(tables, settings)
    assert shown_states(tables.warehouse) == {FIRST: "published"}
    cut(tables.warehouse, pointer.versions)
    publish_days(tables, settings, SECOND)
    refresh(tables, settings)
    assert shown_states(tables.warehouse) == {FIRST: "published", SECOND: "published"}


def test_another_backbone_has_a_view_of_its_own(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST)
    refresh(tables, settings)
    other = replace(settings, backbone=replace(settings.backbone, engine="tensorflow"))
    publish_days(tables, other, SECOND)
    refresh(tables, other)
    assert shown_states(tables.warehouse) == {SECOND: "published"}
    retire_backbone(tables, other, settings.backbone.id)
    refresh(tables, other)
    assert shown_states(tables.warehouse) == {SECOND: "published"}


def test_a_key_that_names_no_day_has_none(tables: Tables, settings: Settings) -> None:
    hourly = with_variables(settings, ORCHARD_BATCH_KEY_FORMAT="%Y%m%d")
    publish_days(tables, settings, FIRST)
    refresh(tables, hourly)
    assert [row["day"] for row in shown_rows(tables.warehouse)] == [None]


def test_of_two_refreshes_at_once_none_is_lost(tables: Tables, settings: Settings) -> None:
    """One is held up just before it writes, while another batch is published and shown."""
    publish_days(tables, settings, FIRST)
    makes, go_on, make = threading.Event(), threading.Event(), view_refresh._make

    def slow_make(*arguments: Any) -> ViewPointer:
        made = make(*arguments)
        if threading.current_thread() is first and not makes.is_set():
            makes.set()
            assert go_on.wait(30)
        return made

    first = threading.Thread(target=refresh, args=(tables, settings))
    with patch.object(view_refresh, "_make", slow_make):
        first.start()
        assert makes.wait(30)
        head = planned(tables, settings, THIRD, bucket_of(THIRD))
        publish_days(tables, settings, SECOND)
        refresh(tables, settings, head)
        go_on.set()
        first.join()
    assert shown_states(tables.warehouse) == {FIRST: "published", SECOND: "published", THIRD: "planned"}


def test_cleaning_removes_former_parts_and_keeps_the_newest(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, FIRST)
    former = refresh(tables, settings)
    (replaced,) = images_of_current(tables)
    run_batch(tables, settings, FIRST, bucket_of(FIRST, 14))
    publish_days(tables, settings, SECOND)
    newest = refresh(tables, settings)
    age(tables)
    removed = {removal.path for removal in clean(tables, settings) if removal.kind == "view"}
    assert removed == {former.versions, replaced}
    left = {path for path in stored(tables) if path.startswith("_work/view/")}
    parts = (newest.versions, newest.models, newest.promotions)
    assert left == {str(ViewPath()), *parts, *images_of_current(tables)}
    assert len(left) == 6
    assert read_pointer(tables.warehouse) == newest
    assert clean(tables, settings, timedelta(0)) is not None
    assert shown_states(tables.warehouse) == {FIRST: "published", SECOND: "published"}
