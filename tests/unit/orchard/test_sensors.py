"""wait_for_uploads: an old batch is decided at once, a fresh one waits for quiet, an empty one is skipped."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from orchard.sensors import Arrivals, UploadsTrigger, WaitForUploads, period_end
from orchard.settings import Settings

NOW = datetime.now(UTC)


class Run:
    def __init__(self, partition_key: str, conf: dict[str, Any] | None = None) -> None:
        self.partition_key, self.conf = partition_key, conf


def execute(monkeypatch: pytest.MonkeyPatch, settings: Settings, run: Run, arrivals: Arrivals) -> None:
    monkeypatch.setattr(WaitForUploads, "_list", lambda self, batch_id: arrivals)
    WaitForUploads(task_id="wait_for_uploads", settings=settings).execute({"dag_run": run})


def seconds_ago(seconds: float) -> Arrivals:
    return Arrivals(3, NOW - timedelta(seconds=seconds))


NONE = Arrivals(0, None)
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
    assert arguments["wait_until"] == pytest.approx((NOW + timedelta(hours=26)).timestamp(), abs=600)
    assert deferred.value.timeout is None
    assert UploadsTrigger(**arguments).serialize() == (path, arguments)


def test_an_empty_day_is_waited_for(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with pytest.raises(TaskDeferred):
        execute(monkeypatch, settings, Run(TODAY), NONE)


def test_an_old_empty_day_is_skipped_at_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with pytest.raises(AirflowSkipException, match="s3://landing/images/2020-01-01/"):
        execute(monkeypatch, settings, Run("2020-01-01"), NONE)


def test_an_old_day_with_a_late_upload_is_decided_at_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    execute(monkeypatch, settings, Run("2020-01-01"), seconds_ago(1))


def test_whoever_finished_the_upload_need_not_wait(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    execute(monkeypatch, settings, Run(TODAY, {"quiet_seconds": 0}), seconds_ago(0))
    with pytest.raises(AirflowSkipException, match="is empty"):
        execute(monkeypatch, settings, Run(TODAY, {"quiet_seconds": 0}), NONE)


def test_a_period_ends_with_the_next_tick() -> None:
    assert period_end("2026-01-31", "%Y-%m-%d", "0 0 * * *") == datetime(2026, 2, 1, tzinfo=UTC)
    assert period_end("2026-01-31T05", "%Y-%m-%dT%H", "0 * * * *") == datetime(2026, 1, 31, 6, tzinfo=UTC)


@pytest.mark.parametrize("partition_key", ["yesterday", None])
def test_a_wrong_key_fails_without_a_retry(monkeypatch: pytest.MonkeyPatch, settings: Settings, partition_key: Any) -> None:
    with pytest.raises(AirflowFailException, match="partition key"):
        execute(monkeypatch, settings, Run(partition_key), NONE)


def test_what_never_settled_is_skipped(settings: Settings) -> None:
    sensor = WaitForUploads(task_id="wait_for_uploads", settings=settings)
    sensor.resume({"dag_run": Run(TODAY)}, {"objects": 3, "is_settled": True})
    with pytest.raises(AirflowSkipException, match="not settled within 93600 s: 3 objects"):
        sensor.resume({"dag_run": Run(TODAY)}, {"objects": 3, "is_settled": False})


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
        item = {"ETag": '"e"', "Size": 1, "LastModified": datetime.now(UTC) - timedelta(seconds=age)}
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
