"""plan_batch: what differs is found by key, ETag and content, whatever the clock says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

import pytest
from orchard.batch.comparison import ListingComparer
from orchard.batch.manifests import read_entries
from orchard.batch.plan import plan_batch
from orchard.landing_zone.keys import checked_partition_key
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import Snapshot
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.errors import ConfigurationError
from support.changed_settings import with_variables
from support.fake_jobs import BROKEN
from support.faked_flow import plan, rows, run_batch
from support.listed_bucket import etag_of, listing
from support.planning import DAY, NEXT_DAY, key, runs_row


def test_a_new_batch_computes_every_image(tables: Tables, settings: Settings) -> None:
    head = plan(tables, settings, DAY, {key("a.jpg"): b"a", key("b.jpg"): b"b"})
    assert head is not None
    assert (head.number, head.listed, head.missing, head.actions) == (1, 2, 0, {"compute": 2})
    uris = [entry.image_uri for entry in read_entries(tables.warehouse, head)]
    assert uris == ["s3://landing/images/2026-01-01/apple/a.jpg", "s3://landing/images/2026-01-01/apple/b.jpg"]


def test_an_unchanged_batch_is_not_planned(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a", key("broken.jpg"): BROKEN}
    run_batch(tables, settings, DAY, bucket)
    assert plan(tables, settings, DAY, bucket) is None


def test_a_later_upload_time_alone_changes_nothing(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a"}
    run_batch(tables, settings, DAY, bucket)
    later = [replace(item, uploaded_at=item.uploaded_at + timedelta(days=9)) for item in listing(bucket)]
    assert plan_batch(tables, settings, DAY, later) is None


def test_one_late_image_is_computed_and_the_rest_is_kept(tables: Tables, settings: Settings) -> None:
    bucket = {key(f"{n}.jpg"): bytes([n]) for n in range(20)} | {key("broken.jpg"): BROKEN}
    run_batch(tables, settings, DAY, bucket)
    jobs = run_batch(tables, settings, DAY, bucket | {key("late.jpg"): b"late"})
    assert len(jobs.network_runs) == 1
    row = runs_row(tables, 2)
    assert [row[name] for name in ("listed", "featurized", "reused", "quarantined", "missing")] == [22, 1, 20, 1, 0]
    assert len(list(tables.rows(FEATURES))) == 21


def test_an_overwritten_image_is_computed_again(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"old", key("b.jpg"): b"b"})
    jobs = run_batch(tables, settings, DAY, {key("a.jpg"): b"new", key("b.jpg"): b"b"})
    assert len(jobs.network_runs) == 1
    published = {row["image_uri"]: row["etag"] for row in tables.rows(FEATURES)}
    listed = listing({key("a.jpg"): b"new", key("b.jpg"): b"b"})
    assert published == {f"s3://landing/{item.key}": item.etag for item in listed}


def test_missing_images_alone_change_nothing(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"a", key("b.jpg"): b"b"})
    assert plan(tables, settings, DAY, {key("a.jpg"): b"a"}) is None


def test_missing_images_keep_their_rows_and_are_counted(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"a", key("gone.jpg"): b"gone", key("bad.jpg"): BROKEN})
    run_batch(tables, settings, DAY, {key("a.jpg"): b"a", key("late.jpg"): b"late"})
    row = runs_row(tables, 2)
    assert [row[name] for name in ("listed", "featurized", "reused", "quarantined", "missing")] == [2, 1, 1, 0, 2]
    assert len(list(tables.rows(FEATURES))) == 3
    assert len(list(tables.rows(QUARANTINE))) == 1


@pytest.mark.parametrize("missing", ["keep", "drop"])
def test_missing_images_go_only_by_a_setting(tables: Tables, settings: Settings, missing: str) -> None:
    chosen = with_variables(settings, ORCHARD_MISSING=missing)
    run_batch(tables, chosen, DAY, {key("a.jpg"): b"a", key("gone.jpg"): b"gone", key("bad.jpg"): BROKEN})
    run_batch(tables, chosen, DAY, {key("a.jpg"): b"a"})
    assert len(list(tables.rows(FEATURES))) == (2 if missing == "keep" else 1)
    assert len(list(tables.rows(QUARANTINE))) == (1 if missing == "keep" else 0)
    assert plan(tables, chosen, DAY, {key("a.jpg"): b"a"}) is None


def test_a_batch_of_which_nothing_is_listed_keeps_its_rows(tables: Tables, settings: Settings) -> None:
    chosen = with_variables(settings, ORCHARD_MISSING="drop")
    run_batch(tables, chosen, DAY, {key("a.jpg"): b"a"})
    assert plan(tables, chosen, DAY, {}) is None


def test_a_view_tells_what_a_run_would_change(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a", key("bad.jpg"): BROKEN}

    def differs(day: str, listed: dict[str, bytes]) -> bool:
        return ListingComparer.load(tables, settings).differs(day, listing(listed))

    assert differs(DAY, bucket)
    run_batch(tables, settings, DAY, bucket)
    assert not differs(DAY, bucket)
    assert not differs(DAY, {key("a.jpg"): b"a"})
    assert differs(DAY, bucket | {key("bad.jpg"): b"mended"})
    assert not differs(NEXT_DAY, {})


def test_a_rival_that_publishes_while_a_view_is_loaded_shows_as_not_whole(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"a"})
    bucket = {key("a.jpg"): b"a", key("late.jpg"): b"late"}
    real = Tables.load

    def load(self: Tables, table: Table, version: int | None = None) -> Snapshot:
        snapshot = real(self, table, version)
        if table == RUNS and next(first):
            run_batch(self, settings, DAY, bucket)
        return snapshot

    first = chain([True], repeat(False))
    with monkeypatch.context() as patch:
        patch.setattr(Tables, "load", load)
        view = ListingComparer.load(tables, settings, DAY)
    assert view.differs(DAY, listing(bucket))
    assert {row["etag"] for row in view.compare(DAY, listing(bucket)).entries.to_pylist() if row["action"] == "keep"} == {
        etag_of(b"a")
    }
    assert plan(tables, settings, DAY, bucket) is None


def test_a_manifest_is_named_by_all_it_holds(tables: Tables, settings: Settings) -> None:
    one = plan(tables, settings, DAY, {key("a.jpg"): b"a"})
    again = plan(tables, settings, DAY, {key("a.jpg"): b"a"})
    other = plan(tables, settings, DAY, {key("a.jpg"): b"b"})
    assert one is not None
    assert again is not None
    assert other is not None
    assert one.digest == again.digest != other.digest


def test_labels_are_the_second_to_last_element(tables: Tables, settings: Settings) -> None:
    bucket = {f"images/{DAY}/x.jpg": b"1", f"images/{DAY}/deep/er/Apple Red 1/y.jpg": b"2"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    assert {entry.label for entry in read_entries(tables.warehouse, head)} == {None, "Apple Red 1"}


@pytest.mark.parametrize(
    ("partition_key", "words"),
    [(None, "no partition key"), ("yesterday", "not of the form"), ("2026-02-31", "not of the form")],
)
def test_a_run_without_a_right_key_says_how_to_start_one(partition_key: str | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        checked_partition_key(partition_key, "%Y-%m-%d")


def test_rows_are_equal_whatever_the_order_of_runs(tables: Tables, settings: Settings, tmp_path: Path) -> None:
    days = {f"2026-01-0{n}": {key(f"{m}.jpg", f"2026-01-0{n}"): bytes([n, m % 3]) for m in range(5)} for n in range(1, 4)}
    for day, bucket in days.items():
        run_batch(tables, settings, day, bucket)
    forward = rows(tables, FEATURES, "manifest_digest", "computed_in", "jobs_version")
    other = with_variables(settings, ORCHARD_WAREHOUSE=f"file://{tmp_path}/other")
    others = Tables.at(other.warehouse)
    others.create_all()
    for day, bucket in reversed(days.items()):
        run_batch(others, other, day, bucket)
    assert rows(others, FEATURES, "manifest_digest", "computed_in", "jobs_version") == forward


def test_upload_times_are_utc() -> None:
    assert all(item.uploaded_at.tzinfo is UTC for item in listing({"k": b"v"}))
    assert listing({"k": b"v"})[0].uploaded_at < datetime.now(UTC)


def test_keys_stay_raw_in_the_manifest(tables: Tables, settings: Settings) -> None:
    bucket = {key("a b%20#?+.jpg"): b"1", key("line\nbreak\u2028.jpg"): b"2", key("日本.jpg"): b"3"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    assert {entry.image_uri.removeprefix("s3://landing/") for entry in read_entries(tables.warehouse, head)} == set(bucket)
    run_batch(tables, settings, DAY, bucket)
    assert {row["image_uri"].removeprefix("s3://landing/") for row in tables.rows(FEATURES)} == set(bucket)
    assert plan(tables, settings, DAY, bucket) is None
