"""status: each state is told from what lies in the warehouse and the landing zone, with its reason and the next step."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from orchard.batch.reconcile import ListPrefix
from orchard.cli import main
from orchard.commands import status
from orchard.commands.status import next_steps
from orchard.launchers.attempts import Attempts
from orchard.maintenance.retire import retire_backbone
from orchard.models.kinds import KINDS
from orchard.reporting.status import BatchState, WarehouseStatus, read_status
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.layout import FaultPath
from orchard_jobs.errors import JobError
from support.changed_settings import with_variables
from support.damage import cut, lose
from support.fake_jobs import BROKEN, FakeJobs
from support.faked_flow import plan, run_batch, run_model, stage_and_publish
from support.faults import killed_after
from support.listed_bucket import listing

DAY, NEXT, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"
Bucket = dict[str, bytes]


def run_models(tables: Tables, settings: Settings) -> None:
    for kind in KINDS:
        run_model(tables, settings, kind.name, kind)


def bucket_of(*days: str, salt: str = "") -> Bucket:
    return {f"images/{day}/apple/{n}.jpg": f"{day}{n}{salt}".encode() for day in days for n in range(6)}


def lister(bucket: Bucket) -> ListPrefix:
    return lambda prefix: listing({key: content for key, content in bucket.items() if key.startswith(prefix)})


def look(tables: Tables, settings: Settings, bucket: Bucket | None) -> dict[str, str]:
    found = read_status(tables, settings, None if bucket is None else lister(bucket))
    return {batch.batch_id: batch.state for batch in found.batches}


def test_without_tables_all_that_is_listed_is_new(settings: Settings) -> None:
    tables = Tables.at(settings.warehouse)
    found = read_status(tables, settings, lister(bucket_of(DAY, NEXT)))
    assert [(batch.batch_id, batch.state) for batch in found.batches] == [(DAY, "new"), (NEXT, "new")]
    assert not found.is_settled
    assert read_status(tables, settings, None) == WarehouseStatus(settings.backbone.id)


def test_damage_to_the_log_of_runs_is_told(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of(DAY))
    cut(tables.warehouse, "runs/_delta_log/00000000000000000001.json")
    found = read_status(tables, settings, None)
    assert ["runs/_delta_log/00000000000000000001.json" in one for one in found.damage] == [True]
    assert [step.command for step in next_steps(found, settings)] == ["orchard repair"]
    assert not found.is_settled


def test_runs_that_are_gone_beside_published_tables_are_damage(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of(DAY))
    for file in list(tables.warehouse.files("runs")):
        lose(tables.warehouse, file.path)
    found = read_status(tables, settings, None)
    assert [one.startswith(f"{tables.warehouse.uri_of('runs')} is no table, although") for one in found.damage] == [True]


def test_a_warehouse_that_cannot_be_reached_is_not_empty(settings: Settings, s3: Any) -> None:
    with pytest.raises(JobError, match="its bucket is not there"):
        read_status(Tables.at("s3://nowhere/warehouse"), settings, None)


def test_batches_go_from_new_to_published_and_are_covered(tables: Tables, settings: Settings) -> None:
    bucket = bucket_of(DAY, NEXT)
    assert look(tables, settings, bucket) == {DAY: "new", NEXT: "new"}
    for day in (DAY, NEXT):
        run_batch(tables, settings, day, bucket)
    before = read_status(tables, settings, lister(bucket))
    assert {batch.state for batch in before.batches} == {"published"}
    assert list(before.model_work) == ["pca_model", "classifier_model"]
    commands = ["airflow dags trigger pca_model", "airflow dags trigger classifier_model"]
    assert [step.command for step in next_steps(before, settings)] == commands
    run_models(tables, settings)
    after = read_status(tables, settings, lister(bucket))
    assert after.is_settled
    assert all(batch.is_covered and batch.captured is not None and 0 < batch.captured <= 1 for batch in after.batches)
    assert list(next_steps(after, settings)) == []


def test_late_and_changed_objects_show_and_expired_ones_do_not(tables: Tables, settings: Settings) -> None:
    bucket = bucket_of(DAY, NEXT, THIRD)
    for day in (DAY, NEXT, THIRD):
        run_batch(tables, settings, day, bucket)
    late = bucket_of(DAY, NEXT) | {f"images/{DAY}/pear/late.jpg": b"late"} | bucket_of(NEXT, salt="other")
    assert look(tables, settings, late) == {DAY: "changed", NEXT: "changed", THIRD: "published"}
    found = read_status(tables, settings, lister(late))
    assert [step.command for step in next_steps(found, settings)] == [
        f"airflow backfill create --dag-id image_batches --from-date {DAY} --to-date {NEXT} --reprocess-behavior completed"
    ]


def test_objects_under_no_batch_are_counted(tables: Tables, settings: Settings) -> None:
    strays = {"images/readme.txt": b"x", "images/fruit/a.jpg": b"x", "images/2026-13-01/a.jpg": b"x"}
    found = read_status(tables, settings, lister(bucket_of(DAY) | strays))
    assert (found.strays, [batch.batch_id for batch in found.batches]) == (3, [DAY])


def test_a_planned_version_shows_how_far_its_jobs_have_come(tables: Tables, settings: Settings) -> None:
    bucket = bucket_of(DAY)
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    for seen in (bucket, None):
        assert look(tables, settings, seen) == {DAY: "planned"}
    work = work_digest(head.digest, settings.backbone.id, "featurize")
    Attempts(tables.warehouse, work).record_end(1, "FAILED", "ValueError: no memory")
    (batch,) = read_status(tables, settings, None).batches
    assert batch.why.endswith("has no finished featurize job; its attempt 1 ended as FAILED: ValueError: no memory")
    told = {"error": "MemoryError: of the job", "at": "2026-01-01T00:00:00+00:00"}
    tables.warehouse.rewrite(str(FaultPath(work)), json.dumps(told).encode())
    (batch,) = read_status(tables, settings, None).batches
    assert batch.why.endswith(": no memory; it failed at 2026-01-01T00:00:00+00:00: MemoryError: of the job")
    for damaged in (b"[1]", b"{}", b"{"):
        tables.warehouse.rewrite(str(FaultPath(work)), damaged)
        assert read_status(tables, settings, None).batches[0].why.endswith("; it failed, and its error record is unreadable")
    FakeJobs(tables, bucket).featurize(head)
    assert look(tables, settings, bucket) == {DAY: "staged"}
    stage_and_publish(tables, head, FakeJobs(tables, bucket))
    assert look(tables, settings, bucket) == {DAY: "published"}


def test_what_the_audit_refuses_is_told_with_its_reason(tables: Tables, settings: Settings) -> None:
    bucket = {f"images/{DAY}/apple/bad{n}.jpg": BROKEN + bytes([n]) for n in range(12)} | bucket_of(DAY)
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    FakeJobs(tables, bucket).featurize(head)
    found = read_status(tables, settings, lister(bucket))
    (batch,) = found.batches
    assert batch.state == "refused"
    assert batch.why.startswith("quarantined_share: ")
    assert batch.why.endswith(": 12 of 18 images are quarantined")
    (step,) = next_steps(found, settings)
    assert f"batch {DAY}: fix what the audit rejected" in step.words
    assert look(tables, with_variables(settings, ORCHARD_MAX_QUARANTINED_SHARE=1.0), bucket) == {DAY: "staged"}
    assert look(tables, settings, {}) == {}, "its images are gone, so nobody waits for it"


@pytest.mark.parametrize("commits", [1, 2])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_version_left_half_way_shows_and_can_be_completed(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int, is_first: bool
) -> None:
    if not is_first:
        run_batch(tables, settings, DAY, bucket_of(DAY, salt="old"))
    head = plan(tables, settings, DAY, bucket_of(DAY))
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket_of(DAY)))
    for seen in (bucket_of(DAY), None):
        assert look(tables, settings, seen) == {DAY: "half-way"}
    found = read_status(tables, settings, None)
    (step,) = [
        step for step in next_steps(found, with_variables(settings, ORCHARD_BATCH_KEY_FORMAT="%Y%m%d")) if DAY in step.words
    ]
    assert "is not a key of ORCHARD_BATCH_KEY_FORMAT=%Y%m%d: set the format back" in step.words


def test_a_staged_version_of_a_retired_backbone_is_nothing_to_go_on_with(
    tables: Tables, settings: Settings, backbone: Backbone
) -> None:
    run_batch(tables, settings, DAY, bucket_of(DAY))
    head = plan(tables, settings, DAY, bucket_of(DAY, NEXT, salt="new"))
    assert head is not None
    FakeJobs(tables, bucket_of(DAY, salt="new")).featurize(head)
    assert look(tables, settings, None) == {DAY: "staged"}
    retire_backbone(tables, replace(settings, backbone=replace(backbone, engine="tensorflow")), backbone.id)
    assert look(tables, settings, None) == {}
    assert look(tables, settings, bucket_of(DAY)) == {DAY: "new"}


class Pages:
    """A landing zone behind boto3's client."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def get_paginator(self, name: str) -> "Pages":
        assert name == "list_objects_v2"
        return self

    def paginate(self, Bucket: str, Prefix: str) -> Iterable[dict[str, Any]]:
        assert (Bucket, Prefix) == ("landing", "images/")
        for item in listing(self.bucket):
            found = {"Key": item.key, "ETag": f'"{item.etag}"', "Size": item.size_bytes, "LastModified": item.uploaded_at}
            yield {"Contents": [found]}


@pytest.fixture
def landing(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Bucket:
    bucket = bucket_of(DAY)
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    monkeypatch.setenv("ORCHARD_COMPONENTS", "3")
    monkeypatch.setattr(status, "_client_of", lambda connection: Pages(bucket))
    return bucket


def test_the_command_tells_a_person(
    tables: Tables, settings: Settings, landing: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 1
    out = capsys.readouterr().out
    assert "no PCA model yet" in out
    assert f"{DAY}  new" in out
    assert f"next: start image_batches for {DAY}, unless runs of them are active\n      airflow backfill create" in out
    run_batch(tables, settings, DAY, landing)
    run_models(tables, settings)
    assert main(["status", "--connection", "aws_default"]) == 0
    assert "nothing is pending\n" in capsys.readouterr().out
    assert main(["status", "--no-listing"]) == 0
    assert "the landing zone was not listed" in capsys.readouterr().out


def test_the_command_tells_a_program(
    tables: Tables, settings: Settings, landing: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    run_batch(tables, settings, DAY, landing)
    assert main(["status", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["is_settled"], found["strays"]) == (False, 0)
    counts = {"listed": 6, "quarantined": 0, "missing": 0}
    state = {
        "batch_id": DAY,
        "state": "published",
        "version": 1,
        "captured": None,
        "is_covered": False,
        "accuracy": None,
        "why": "",
    }
    assert found["batches"][0] | {"captured": None} == state | counts
    assert found["next"] == [
        {"words": f"start {dag_id}, unless a run of it is active", "command": f"airflow dags trigger {dag_id}"}
        for dag_id in ("pca_model", "classifier_model")
    ]


def test_the_command_counts_what_a_desktop_left_in_the_landing_zone(
    tables: Tables, settings: Settings, landing: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    run_batch(tables, settings, DAY, dict(landing))
    landing |= {f"images/{DAY}/apple/._0.jpg": b"AppleDouble", "images/.DS_Store": b"Finder"}
    assert main(["status"]) == 1
    out = capsys.readouterr().out
    assert "ignored files of the landing zone that desktop systems create: 2" in out
    assert f"{DAY}  published" in out
    assert main(["status", "--json", "--no-listing"]) == 1
    assert json.loads(capsys.readouterr().out)["junk"] is None


def test_days_far_apart_are_started_apart(settings: Settings) -> None:
    days = ("2026-01-01", "2026-01-02", "2026-03-01", *(f"2026-0{month}-10" for month in range(4, 10)))
    found = WarehouseStatus("backbone", batches=tuple(BatchState(day, "new") for day in days))
    steps = list(next_steps(found, settings))
    ranges = [step.command.split(" --from-date ")[1].split(" --reprocess")[0] for step in steps if step.command]
    expected = ["2026-01-01 --to-date 2026-01-02", "2026-03-01 --to-date 2026-03-01"]
    assert ranges == expected + [f"2026-0{month}-10 --to-date 2026-0{month}-10" for month in (4, 5, 6)]
    assert steps[-1].words.startswith("3 more such series of batches")


def test_hours_of_one_day_that_do_not_follow_each_other_are_started_apart(settings: Settings) -> None:
    hourly = with_variables(settings, ORCHARD_BATCH_KEY_FORMAT="%Y-%m-%dT%H", ORCHARD_SCHEDULE="0 * * * *")
    hours = ("2026-01-01T22", "2026-01-01T23", "2026-01-02T00", "2026-01-02T09")
    found = WarehouseStatus("backbone", batches=tuple(BatchState(hour, "new") for hour in hours))
    commands = [step.command for step in next_steps(found, hourly)]
    start = "airflow backfill create --dag-id image_batches --from-date"
    assert commands == [
        f"{start} 2026-01-01T22:00:00 --to-date 2026-01-02 --reprocess-behavior completed",
        f"{start} 2026-01-02T09:00:00 --to-date 2026-01-02T09:00:00 --reprocess-behavior completed",
    ]
    by_hand = list(next_steps(found, with_variables(hourly, ORCHARD_SCHEDULE="none")))
    assert [step.command is None for step in by_hand] == [True, True, False, True]
    assert "by hand for 2026-01-01T22" in by_hand[0].words


def test_a_landing_zone_that_cannot_be_listed_is_one_line(
    landing: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from botocore.exceptions import NoCredentialsError

    def refuse(*_: Any, **__: Any) -> Any:
        raise NoCredentialsError()

    monkeypatch.setattr(Pages, "get_paginator", refuse)
    assert main(["status"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("orchard: cannot list s3://landing/images: ")
    assert err.count("\n") == 1
