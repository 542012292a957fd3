"""wait_for_uploads: an old batch is decided at once, a fresh one waits for quiet, an empty one is skipped."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from orchard.landing_zone.periods import period_end, period_start
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.workflow.assets import UPLOADS
from orchard.workflow.sensors import ListingSummary, RunEndTrigger, UploadsTrigger, WaitForUploads
from orchard_jobs.contract.columns import RUNS
from support.changed_settings import with_variables
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, run_batch, stage_and_publish
from support.faults import killed_after
from support.state_store import Memory

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it always be NOW."""
    monkeypatch.setattr("orchard.workflow.sensors._now", lambda: NOW)


class Run:
    dag_id = "image_batches"

    def __init__(self, partition_key: str, conf: dict[str, Any] | None = None, run_id: str = "mine") -> None:
        self.partition_key, self.conf, self.run_id = partition_key, conf, run_id


class Ti:
    """A task instance that knows which runs are running."""

    def __init__(self, *active: str) -> None:
        self.active = active

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        assert (dag_id, states) in [("image_batches", ["queued", "running"]), ("image_batches", ["running"])]
        return len(set(run_ids) & set(self.active))


def context_of(run: Run, store: Memory | None = None, ti: Ti | None = None) -> dict[str, Any]:
    return {"dag_run": run, "ti": ti or Ti(), "asset_state_store": {UPLOADS: store or Memory()}}


def execute(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    run: Run,
    arrivals: ListingSummary,
    is_announced: bool = False,
    store: Memory | None = None,
    ti: Ti | None = None,
) -> None:
    monkeypatch.setattr(WaitForUploads, "_list", lambda self, batch_id: arrivals)
    sensor = WaitForUploads(task_id="wait_for_uploads", settings=settings, is_announced=is_announced)
    sensor.execute(context_of(run, store, ti))


def seconds_ago(seconds: float) -> ListingSummary:
    return ListingSummary(3, NOW - timedelta(seconds=seconds))


NONE = ListingSummary(0, None)
TODAY = f"{NOW:%Y-%m-%d}"


def test_a_settled_batch_goes_on(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    execute(monkeypatch, settings, Run(TODAY), seconds_ago(601))


def test_a_fresh_batch_is_waited_for(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        execute(monkeypatch, settings, Run(TODAY), seconds_ago(10))
    trigger = deferred.value.trigger
    assert isinstance(trigger, UploadsTrigger)
    path, arguments = trigger.serialize()
    assert path == "orchard.sensors.UploadsTrigger"
    assert arguments["prefix"] == f"images/{TODAY}/"
    assert arguments["wait_until"] == (NOW + timedelta(hours=26)).timestamp()
    assert deferred.value.timeout is None
    assert UploadsTrigger(**arguments).serialize() == (path, arguments)


def test_an_empty_day_is_waited_for(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with pytest.raises(TaskDeferred):
        execute(monkeypatch, settings, Run(TODAY), NONE)


def test_an_old_empty_day_is_skipped_at_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with pytest.raises(AirflowSkipException, match="s3://landing/images/2020-01-01/"):
        execute(monkeypatch, settings, Run("2020-01-01"), NONE)


def test_an_empty_day_goes_on_where_a_version_was_left_half_way(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tables: Tables
) -> None:
    bucket = {"images/2020-01-01/kiwi/a.jpg": b"a"}
    head = plan(tables, settings, "2020-01-01", bucket)
    assert head is not None
    with killed_after(1, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket))
    execute(monkeypatch, settings, Run("2020-01-01"), NONE)
    run_batch(tables, settings, "2020-01-01", {})
    assert [row["version"] for row in tables.rows(RUNS)] == [1]
    with pytest.raises(AirflowSkipException, match="is empty"):
        execute(monkeypatch, settings, Run("2020-01-01"), NONE)


def test_an_old_day_with_a_late_upload_is_decided_at_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    execute(monkeypatch, settings, Run("2020-01-01"), seconds_ago(1))


def test_a_run_without_a_quiet_period_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    execute(monkeypatch, settings, Run(TODAY, {"quiet_seconds": 0}), seconds_ago(0))
    with pytest.raises(AirflowSkipException, match="is empty"):
        execute(monkeypatch, settings, Run(TODAY, {"quiet_seconds": 0}), NONE)


def test_a_period_ends_with_the_next_tick() -> None:
    assert period_end(period_start("2026-01-31", "%Y-%m-%d"), "0 0 * * *") == datetime(2026, 2, 1, tzinfo=UTC)
    assert period_end(period_start("2026-01-31T05", "%Y-%m-%dT%H"), "0 * * * *") == datetime(2026, 1, 31, 6, tzinfo=UTC)


ODD_SECONDS: list[Any] = ["soon", None, [], True, -1, float("inf")]
ODD_CONFS: list[Any] = [*({"quiet_seconds": one} for one in ODD_SECONDS), ["x"], "quiet_seconds", 3]


@pytest.mark.parametrize("conf", ODD_CONFS)
def test_a_conf_of_a_wrong_type_fails_without_a_retry(monkeypatch: pytest.MonkeyPatch, settings: Settings, conf: Any) -> None:
    with pytest.raises(
        AirflowFailException, match=r"of this run gives no number of seconds as quiet_seconds: .*start the run with"
    ):
        execute(monkeypatch, settings, Run(TODAY, conf), NONE)


@pytest.mark.parametrize("quiet", [0, 0.0, "0"])
def test_a_conf_may_ask_not_to_wait(monkeypatch: pytest.MonkeyPatch, settings: Settings, quiet: Any) -> None:
    execute(monkeypatch, settings, Run(TODAY, {"quiet_seconds": quiet, "why": "by hand"}), seconds_ago(1))


def test_a_key_whose_period_no_calendar_ends_is_refused(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with pytest.raises(AirflowFailException, match="partition key '9999-12-31'.*after the year 9900"):
        execute(monkeypatch, settings, Run("9999-12-31"), NONE)


@pytest.mark.parametrize("schedule", ["0 0 * * *", "0 0 29 2 1", "none"])
def test_the_last_key_that_is_taken_is_waited_for(monkeypatch: pytest.MonkeyPatch, settings: Settings, schedule: str) -> None:
    settings = with_variables(settings, ORCHARD_SCHEDULE=schedule, ORCHARD_GRACE_SECONDS=1e9)
    with pytest.raises(TaskDeferred):
        execute(monkeypatch, settings, Run("9900-12-31"), NONE)


@pytest.mark.parametrize("partition_key", ["yesterday", None])
def test_a_wrong_key_fails_without_a_retry(monkeypatch: pytest.MonkeyPatch, settings: Settings, partition_key: Any) -> None:
    with pytest.raises(AirflowFailException, match="partition key"):
        execute(monkeypatch, settings, Run(partition_key), NONE)


def test_what_never_settled_is_skipped(settings: Settings) -> None:
    sensor = WaitForUploads(task_id="wait_for_uploads", settings=settings, is_announced=False)
    sensor.resume(context_of(Run(TODAY)), {"objects": 3, "is_settled": True})
    with pytest.raises(AirflowSkipException, match="not settled within 93600 s: 3 objects"):
        sensor.resume(context_of(Run(TODAY)), {"objects": 3, "is_settled": False})


def test_an_announced_upload_to_an_old_day_is_waited_for_until_it_is_quiet(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        execute(monkeypatch, settings, Run("2020-01-01"), seconds_ago(10), is_announced=True)
    assert isinstance(deferred.value.trigger, UploadsTrigger)
    execute(monkeypatch, settings, Run("2020-01-01"), seconds_ago(601), is_announced=True)


@pytest.mark.parametrize("day", [TODAY, "2020-01-01"])
def test_what_was_announced_and_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, settings: Settings, day: str) -> None:
    with pytest.raises(AirflowSkipException, match="is empty"):
        execute(monkeypatch, settings, Run(day), NONE, is_announced=True)


def test_an_announced_run_gives_way_to_one_that_will_list_later(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    store, old = Memory(), seconds_ago(601)
    with pytest.raises(TaskDeferred):
        execute(monkeypatch, settings, Run(TODAY, run_id="first"), seconds_ago(1), is_announced=True, store=store)
    with pytest.raises(AirflowSkipException, match="run first of image_batches will list batch"):
        execute(monkeypatch, settings, Run(TODAY), old, is_announced=True, store=store, ti=Ti("first"))
    execute(monkeypatch, settings, Run("2020-01-01"), old, is_announced=True, store=store, ti=Ti("first"))
    execute(monkeypatch, settings, Run(TODAY), old, is_announced=True, store=store, ti=Ti())  # the first failed
    execute(monkeypatch, settings, Run(TODAY, run_id="by hand"), old, store=store, ti=Ti("first"))


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_run_waits_while_another_is_at_work(monkeypatch: pytest.MonkeyPatch, settings: Settings, is_announced: bool) -> None:
    store, old = Memory(), seconds_ago(601)
    execute(monkeypatch, settings, Run(TODAY, run_id="worker"), old, store=store)
    store.delete(f"{TODAY}/coming")  # it has begun to list
    with pytest.raises(TaskDeferred) as deferred:
        execute(monkeypatch, settings, Run(TODAY), old, is_announced, store, Ti("worker"))
    trigger = deferred.value.trigger
    assert isinstance(trigger, RunEndTrigger)
    path, arguments = trigger.serialize()
    assert (path, arguments["run_id"]) == ("orchard.sensors.RunEndTrigger", "worker")
    assert RunEndTrigger(**arguments).serialize() == (path, arguments)
    sensor = WaitForUploads(task_id="wait_for_uploads", settings=settings, is_announced=is_announced)
    sensor.resume_turn(context_of(Run(TODAY), store, Ti()), {"dag_id": "image_batches", "run_id": "worker"})
    assert store.get(f"{TODAY}/at_work") == ["image_batches", "mine"]


def test_the_end_of_a_run_is_seen_also_when_it_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [1, 1, 0]

    def count(dag_id: str, run_ids: list[str], states: list[str]) -> int:
        assert (dag_id, run_ids, states) == ("image_batches", ["r"], ["running"])
        return counts.pop(0)

    monkeypatch.setattr("orchard.workflow.sensors.RuntimeTaskInstance.get_dr_count", count)

    async def first() -> Any:
        async for event in RunEndTrigger("image_batches", "r", poll_seconds=0).run():
            return event.payload

    assert asyncio.run(first()) == {"dag_id": "image_batches", "run_id": "r"}
    assert counts == []


class Listing:
    """An asynchronous S3 client whose every look shows one more object, a second younger."""

    def __init__(self, looks: list[float]) -> None:
        self.looks = looks

    async def __aenter__(self) -> "Listing":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def get_paginator(self, name: str) -> "Listing":
        assert name == "list_objects_v2"
        return self

    async def paginate(self, Bucket: str, Prefix: str) -> Any:
        assert (Bucket, Prefix) == ("landing", "images/d/")
        age = self.looks.pop(0)
        item = {"ETag": '"e"', "Size": 1, "LastModified": NOW - timedelta(seconds=age)}
        yield {"Contents": [{"Key": "images/d/x"} | item, {"Key": "images/d/"} | item]}


def fired(monkeypatch: pytest.MonkeyPatch, looks: list[float], wait_until: float) -> dict[str, Any]:
    async def connect(hook: Any) -> Listing:
        return Listing(looks)

    async def first(trigger: UploadsTrigger) -> Any:
        async for event in trigger.run():
            return event.payload

    monkeypatch.setattr(S3Hook, "get_async_conn", connect)
    payload: dict[str, Any] = asyncio.run(first(UploadsTrigger("landing", "images/d/", "aws_default", 5, 0, wait_until)))
    return payload


def test_the_trigger_looks_until_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [1.0, 2.0, 6.0, 99.0]
    assert fired(monkeypatch, looks, NOW.timestamp() + 3600) == {"objects": 1, "is_settled": True}
    assert looks == [99.0]


def test_the_trigger_ends_with_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fired(monkeypatch, [1.0, 1.0], NOW.timestamp() - 1) == {"objects": 1, "is_settled": False}


def test_an_empty_batch_is_listed_again_once_nobody_gives_way_any_more(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """What came between the listing and the skip would be seen by no run: others gave way to this one."""
    store, listings = Memory(), iter((NONE, seconds_ago(1)))

    def listed(self: WaitForUploads, batch_id: str) -> ListingSummary:
        found = next(listings)
        assert found is NONE or store.get(f"{batch_id}/coming") is None
        return found

    monkeypatch.setattr(WaitForUploads, "_list", listed)
    sensor = WaitForUploads(task_id="wait_for_uploads", settings=settings, is_announced=True)
    sensor.execute(context_of(Run("2020-01-01"), store))
    assert next(listings, None) is None
