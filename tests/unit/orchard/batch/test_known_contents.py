"""A plan reuses the vector of every content that is known, by whatever tells that two images are equal."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from orchard.batch.manifests import read_entries
from orchard.batch.plan import plan_batch
from orchard.landing_zone.listing import ListedObject
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from support.changed_settings import with_variables
from support.fake_jobs import BROKEN, FakeJobs, vector_of
from support.faked_flow import plan, run_batch
from support.listed_bucket import ENCRYPTED, OPAQUE, ListedBucket, listing
from support.planning import DAY, NEXT_DAY, key, runs_row, runs_row_of


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


def test_images_that_moved_to_another_bucket_keep_their_vectors(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a", key("b.jpg"): b"b", key("bad.jpg"): BROKEN}
    run_batch(tables, settings, DAY, bucket)
    run_batch(tables, with_variables(settings, ORCHARD_LANDING="s3://company/images", ORCHARD_MISSING="drop"), DAY, bucket)
    assert [runs_row(tables, 2)[name] for name in ("network_runs", "reused", "quarantined", "missing")] == [0, 2, 1, 0]
    for table, count in ((FEATURES, 2), (QUARANTINE, 1)):
        uris = [row["image_uri"] for row in tables.rows(table)]
        assert len(uris) == count
        assert all(uri.startswith("s3://company/") for uri in uris)


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


def test_images_that_may_be_equal_share_a_group(tables: Tables, settings: Settings) -> None:
    items = listing({key("a.jpg"): b"12", key("b.jpg"): b"34", key("c.jpg"): b"5"})
    multipart = replace(items[1], etag="0" * 32 + "-2")
    head = plan_batch(tables, settings, DAY, [items[0], multipart, items[2]])
    assert head is not None
    groups = [entry.group for entry in read_entries(tables.warehouse, head)]
    assert groups == ["2", "2", items[2].etag]
