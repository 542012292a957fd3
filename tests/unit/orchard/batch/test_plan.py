"""plan_batch: what differs is found by key, ETag and content, whatever the clock says."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from orchard.batch.comparison import ListingComparer
from orchard.batch.manifests import read_entries
from orchard.batch.plan import plan_batch
from orchard.landing_zone.keys import checked_partition_key
from orchard.landing_zone.listing import ListedObject, S3LandingZone
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import Snapshot
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.contract.manifest import Entry, ManifestHead
from orchard_jobs.errors import ConfigurationError
from support.fake_jobs import BROKEN, FakeJobs, vector_of
from support.flow import plan, rows, run_batch, stage_and_publish
from support.listed_bucket import ENCRYPTED, OPAQUE, ListedBucket, etag_of, listing
from support.settings import with_variables

DAY = "2026-01-01"
NEXT_DAY = "2026-01-02"


def key(name: str, day: str = DAY, label: str = "apple") -> str:
    return f"images/{day}/{label}/{name}"


def runs_row_of(tables: Tables, day: str) -> dict[str, object]:
    (row,) = tables.rows(RUNS, batch_id=day)
    return row


def runs_row(tables: Tables, number: int = 1) -> dict[str, object]:
    (row,) = [row for row in tables.rows(RUNS) if row["version"] == number]
    return row


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


def test_known_content_of_any_batch_is_reused_without_the_network(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"same"})
    bucket = {key("moved.jpg", NEXT_DAY, "pear"): b"same"}
    head = plan(tables, settings, NEXT_DAY, bucket)
    assert head is not None
    assert head.actions == {"reuse": 1}
    jobs = run_batch(tables, settings, NEXT_DAY, bucket)
    assert jobs.network_runs == []
    (row,) = tables.rows(FEATURES, batch_id=NEXT_DAY)
    assert row["label"] == "pear"
    assert row["image_uri"].endswith("2026-01-02/pear/moved.jpg")
    assert row["computed_in"] != row["manifest_digest"]


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


def test_images_that_moved_to_another_bucket_keep_their_vectors(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a", key("b.jpg"): b"b", key("bad.jpg"): BROKEN}
    run_batch(tables, settings, DAY, bucket)
    run_batch(tables, with_variables(settings, ORCHARD_LANDING="s3://company/images", ORCHARD_MISSING="drop"), DAY, bucket)
    assert [runs_row(tables, 2)[name] for name in ("network_runs", "reused", "quarantined", "missing")] == [0, 2, 1, 0]
    for table, count in ((FEATURES, 2), (QUARANTINE, 1)):
        uris = [row["image_uri"] for row in tables.rows(table)]
        assert len(uris) == count
        assert all(uri.startswith("s3://company/") for uri in uris)


def test_a_vanished_image_is_computed_by_the_next_run(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a", key("slow.jpg"): b"slow"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    run_batch_with_vanished(tables, settings, bucket)
    assert [row["reason"] for row in tables.rows(QUARANTINE)] == ["vanished"]
    run_batch(tables, settings, DAY, bucket)
    assert list(tables.rows(QUARANTINE)) == []
    assert len(list(tables.rows(FEATURES))) == 2


def test_a_vanished_row_that_is_no_longer_listed_is_dropped(tables: Tables, settings: Settings) -> None:
    run_batch_with_vanished(tables, settings, {key("a.jpg"): b"a", key("slow.jpg"): b"slow"})
    run_batch(tables, settings, DAY, {key("a.jpg"): b"a", key("late.jpg"): b"late"})
    assert list(tables.rows(QUARANTINE)) == []
    assert runs_row(tables, 2)["missing"] == 0


def run_batch_with_vanished(tables: Tables, settings: Settings, bucket: dict[str, bytes]) -> None:
    """Run a batch whose image `slow.jpg` goes between the listing and the job."""
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    stage_and_publish(tables, head, FakeJobs(tables, {k: v for k, v in bucket.items() if "slow" not in k}))


def test_rows_over_the_pixel_limit_are_judged_again_when_it_rose(tables: Tables, settings: Settings) -> None:
    bucket = {key("huge.jpg"): BROKEN}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    jobs = _OverLimitJobs(tables, bucket)
    stage_and_publish(tables, head, jobs)
    assert plan(tables, settings, DAY, bucket) is None
    assert plan(tables, with_variables(settings, ORCHARD_PIXEL_LIMIT=settings.images.pixel_limit - 1), DAY, bucket) is None
    raised = plan(tables, with_variables(settings, ORCHARD_PIXEL_LIMIT=settings.images.pixel_limit + 1), DAY, bucket)
    assert raised is not None
    assert raised.actions == {"compute": 1}


def test_a_missing_image_over_the_old_limit_is_judged_when_it_comes_back(tables: Tables, settings: Settings) -> None:
    bucket = {key("huge.jpg"): BROKEN, key("a.jpg"): b"a"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    stage_and_publish(tables, head, _OverLimitJobs(tables, bucket))
    raised = with_variables(settings, ORCHARD_PIXEL_LIMIT=settings.images.pixel_limit + 1)
    for content in (b"another", b"a third"):  # twice: the row is kept as a missing one's, too
        run_batch(tables, raised, DAY, {key("a.jpg"): content})
    assert [row["reason"] for row in tables.rows(QUARANTINE)] == ["over the pixel limit"]
    back = {key("huge.jpg"): BROKEN, key("a.jpg"): b"a third"}
    found = plan(tables, raised, DAY, back)
    assert found is not None
    assert found.actions == {"compute": 1, "keep": 1}
    run_batch(tables, raised, DAY, back)
    assert plan(tables, raised, DAY, back) is None


def test_rows_over_the_size_limit_are_judged_again_when_it_rose(tables: Tables, settings: Settings) -> None:
    bucket = {key("large.jpg"): b"12345", key("small.jpg"): b"1234"}
    small = with_variables(settings, ORCHARD_OBJECT_LIMIT=4)
    run_batch(tables, small, DAY, bucket)
    (row,) = tables.rows(QUARANTINE)
    assert (row["reason"], row["message"]) == ("over the size limit", "5 bytes, the limit is 4")
    for lower in (4, 3):
        assert plan(tables, with_variables(settings, ORCHARD_OBJECT_LIMIT=lower), DAY, bucket) is None
    run_batch(tables, settings, DAY, bucket)
    assert list(tables.rows(QUARANTINE)) == []
    assert len(list(tables.rows(FEATURES))) == 2


def test_a_staged_version_of_another_size_limit_is_not_gone_on_with(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a"}
    begun = plan(tables, settings, DAY, bucket)
    assert begun is not None
    FakeJobs(tables, bucket).featurize(begun)
    other = plan(tables, with_variables(settings, ORCHARD_OBJECT_LIMIT=9), DAY, bucket)
    assert other is not None
    assert (other.digest != begun.digest, plan(tables, settings, DAY, bucket)) == (True, begun)


class _OverLimitJobs(FakeJobs):
    def _compute(self, head: ManifestHead, entry: Entry, reused: Any, good: list[Any], bad: list[Any], stamp: Any) -> None:
        super()._compute(head, entry, reused, good, bad, stamp)
        if bad:
            bad[-1]["reason"] = "over the pixel limit"


def test_content_that_came_back_is_reused_from_the_replaced_version(tables: Tables, settings: Settings) -> None:
    for content in (b"first", b"second"):
        run_batch(tables, settings, DAY, {key("a.jpg"): content})
    jobs = run_batch(tables, settings, DAY, {key("a.jpg"): b"first", key("b.jpg"): b"second"})
    assert jobs.network_runs == []
    assert runs_row(tables, 3)["reused"] == 2


def test_vectors_that_were_staged_and_never_published_are_reused(tables: Tables, settings: Settings) -> None:
    head = plan(tables, settings, DAY, {key("a.jpg"): b"a", key("bad.jpg"): BROKEN})
    assert head is not None
    FakeJobs(tables, {key("a.jpg"): b"a", key("bad.jpg"): BROKEN}).featurize(head)
    jobs = run_batch(tables, settings, NEXT_DAY, {key("b.jpg", NEXT_DAY): b"a"})
    assert jobs.network_runs == []
    jobs = run_batch(tables, settings, DAY, {key("a.jpg"): b"a", key("late.jpg"): b"late"})
    assert len(jobs.network_runs) == 1


def test_a_damaged_staged_file_gives_no_vector(tables: Tables, settings: Settings) -> None:
    head = plan(tables, settings, DAY, {key("a.jpg"): b"a"})
    assert head is not None
    (file,) = FakeJobs(tables, {key("a.jpg"): b"a"}).featurize(head).of_table("features")[0].files
    path = Path(tables.warehouse.uri.removeprefix("file://")) / file.path
    whole = path.read_bytes()
    place = whole.index(vector_of(b"a", settings.backbone.dimension).tobytes())
    path.write_bytes(whole[:place] + b"\x00" + whole[place + 1 :])
    bucket = {key("b.jpg", NEXT_DAY): b"a"}
    assert len(run_batch(tables, settings, NEXT_DAY, bucket).network_runs) == 1
    path.write_bytes(b"no Parquet" + whole[10:-10] + b"no Parquet")
    assert plan(tables, settings, "2026-01-03", {key("c.jpg", "2026-01-03"): b"c"}) is not None


def test_only_the_bytes_tell_that_an_opaque_object_is_known(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"same", key("b.jpg"): b"diff"})
    bucket = {key("copy.jpg", NEXT_DAY): OPAQUE + b"same", key("new.jpg", NEXT_DAY): OPAQUE + b"more"}
    head = plan(tables, settings, NEXT_DAY, bucket)
    assert head is not None
    assert head.actions == {"compute": 2}
    assert head.known is not None
    assert head.known.entries == 2
    jobs = run_batch(tables, settings, NEXT_DAY, bucket)
    assert jobs.network_runs == [hashlib.sha256(b"more").hexdigest()]
    back = {key("plain.jpg", "2026-01-03"): b"more"}
    assert run_batch(tables, settings, "2026-01-03", back).network_runs == []
    assert runs_row_of(tables, "2026-01-03")["reused"] == 1


@pytest.mark.parametrize("can_be_asked", [True, False])
def test_an_etag_that_only_looks_like_an_md5_costs_no_row(
    tables: Tables, settings: Settings, can_be_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_be_asked:
        monkeypatch.setattr(ListedBucket, "has_false_md5", lambda bucket, image_uri: False)
    run_batch(tables, settings, DAY, {key("a.jpg"): b"same"})
    bucket = {key(f"{n}.jpg", NEXT_DAY): ENCRYPTED + b"%d same" % n for n in range(2)}
    assert {item.size_bytes for item in listing(bucket)} == {4}
    runs = [] if can_be_asked else [hashlib.sha256(b"same").hexdigest()]
    assert run_batch(tables, settings, NEXT_DAY, bucket).network_runs == runs
    rows = list(tables.rows(FEATURES))
    assert len(rows) == len({row["etag"] for row in rows}) == 3
    assert len({(row["content_sha256"], tuple(row["features"])) for row in rows}) == 1
    assert plan(tables, settings, NEXT_DAY, bucket) is None


def test_the_newest_image_whose_etag_looks_like_an_md5_is_asked_about(tables: Tables, settings: Settings) -> None:
    etags = {"old": "a" * 32, "new": "b" * 32, "multipart": "c" * 32 + "-2"}
    moments = {name: datetime(2026, 1, day, tzinfo=UTC) for day, name in enumerate(etags, 1)}
    listed = [ListedObject(key(f"{name}.jpg"), etag, 4, moments[name]) for name, etag in etags.items()]
    asked = list[str]()

    def is_encrypted(image_uri: str) -> bool:
        asked.append(image_uri)
        return False

    plan_batch(tables, settings, DAY, listed, is_encrypted)
    assert asked == [f"s3://landing/{key('new.jpg')}"]
    plan_batch(tables, settings, NEXT_DAY, [], is_encrypted)
    assert len(asked) == 1


@pytest.mark.parametrize("most", [3, 2])
def test_very_many_images_of_one_size_are_not_one_workers_task(
    tables: Tables, settings: Settings, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchard.batch.plan._MOST_ALIKE", most)
    bucket = {key(f"{n}.jpg"): ENCRYPTED + b"%d four" % n for n in range(3)}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    groups = {entry.group for entry in read_entries(tables.warehouse, head)}
    assert groups == ({"4"} if most == 3 else {item.etag for item in listing(bucket)})


def test_a_new_size_needs_no_list_of_known_contents(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {key("a.jpg"): b"same"})
    head = plan(tables, settings, NEXT_DAY, {key("x.jpg", NEXT_DAY): OPAQUE + b"longer", key("y.jpg", NEXT_DAY): b"four"})
    assert head is not None
    assert (head.known, head.vector_files) == (None, ())


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


def test_images_that_may_be_equal_share_a_group(tables: Tables, settings: Settings) -> None:
    items = listing({key("a.jpg"): b"12", key("b.jpg"): b"34", key("c.jpg"): b"5"})
    multipart = replace(items[1], etag="0" * 32 + "-2")
    head = plan_batch(tables, settings, DAY, [items[0], multipart, items[2]])
    assert head is not None
    groups = [entry.group for entry in read_entries(tables.warehouse, head)]
    assert groups == ["2", "2", items[2].etag]


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


class Pages:
    """A boto3 client whose listing has two pages."""

    def get_paginator(self, name: str) -> "Pages":
        assert name == "list_objects_v2"
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        assert (Bucket, Prefix) == ("landing", "images/2026-01-01/")
        new_york = timezone(timedelta(hours=-5))
        at = datetime(2026, 1, 1, 7, tzinfo=new_york)
        keys = ["a/", "a/x 1.jpg", "a/ü%20#?.jpg", "loose.jpg"]
        items = [{"Key": Prefix + key, "ETag": '"e-2"', "Size": 3, "LastModified": at} for key in keys]
        return [{"Contents": items[:2]}, {"Contents": items[2:]}, {}]


def test_a_listing_is_every_object_of_every_page_but_folder_markers() -> None:
    found = list(S3LandingZone(Pages(), "landing").list("images/2026-01-01/"))
    assert [item.key.removeprefix("images/2026-01-01/") for item in found] == ["a/x 1.jpg", "a/ü%20#?.jpg", "loose.jpg"]
    assert {(item.etag, item.uploaded_at) for item in found} == {("e-2", datetime(2026, 1, 1, 12, tzinfo=UTC))}


@pytest.mark.parametrize(
    ("told", "is_false"),
    [
        ({"ServerSideEncryption": "aws:kms"}, True),
        ({"ServerSideEncryption": "aws:kms:dsse"}, True),
        ({"ServerSideEncryption": "AES256"}, False),
        ({}, False),
        ("403", False),
        ("404", False),
    ],
)
def test_the_store_tells_of_what_a_key_of_kms_encrypts(
    told: dict[str, str] | str, is_false: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert S3LandingZone(Head(told), "landing").has_false_md5("s3://landing/images/2026-01-01/a b%20#.jpg") is is_false
    assert ("cannot be determined" in caplog.text) == isinstance(told, str)


def test_a_store_that_is_busy_is_asked_again_by_the_next_try() -> None:
    with pytest.raises(ClientError):
        S3LandingZone(Head("503"), "landing").has_false_md5("s3://landing/images/2026-01-01/a b%20#.jpg")


@dataclass(frozen=True)
class Head:
    """An S3 client that answers, or refuses with a code."""

    told: dict[str, str] | str

    def head_object(self, Bucket: str, Key: str) -> dict[str, str]:
        assert (Bucket, Key) == ("landing", "images/2026-01-01/a b%20#.jpg")
        if isinstance(self.told, str):
            raise ClientError({"Error": {"Code": self.told, "Message": "refused"}}, "HeadObject")
        return self.told


def test_keys_stay_raw_in_the_manifest(tables: Tables, settings: Settings) -> None:
    bucket = {key("a b%20#?+.jpg"): b"1", key("line\nbreak\u2028.jpg"): b"2", key("日本.jpg"): b"3"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    assert {entry.image_uri.removeprefix("s3://landing/") for entry in read_entries(tables.warehouse, head)} == set(bucket)
    run_batch(tables, settings, DAY, bucket)
    assert {row["image_uri"].removeprefix("s3://landing/") for row in tables.rows(FEATURES)} == set(bucket)
    assert plan(tables, settings, DAY, bucket) is None
