"""The tasks' own order of steps, with Airflow and S3 replaced by what they are asked for."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from orchard.batch.manifests import read_entries, read_head
from orchard.landing_zone.listing import ListedObject
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.workflow import tasks
from orchard.workflow.assets import FEATURES, UPLOADS
from support.fake_jobs import FakeJobs, listing
from support.faults import killed_after
from support.flow import plan, run_batch, stage_and_publish

DAY, NEXT = "2026-01-01", "2026-01-02"
Bucket = dict[str, bytes]


class Events:
    """Outlet events that remember the partitions."""

    def __init__(self) -> None:
        self.added: dict[Any, list[str]] = {UPLOADS: [], FEATURES: []}

    def __getitem__(self, asset: Any) -> Any:
        added = self.added[asset]
        return type("Adder", (), {"add_partitions": lambda self, keys: added.extend(keys)})()


class Encrypted:
    """An S3 client as of a bucket under SSE-KMS."""

    def head_object(self, Bucket: str, Key: str) -> dict[str, str]:
        assert (Bucket, Key) == ("landing", f"images/{DAY}/kiwi/a.jpg")
        return {"ServerSideEncryption": "aws:kms"}


class Turns:
    batch_id = DAY

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def begin_listing(self) -> None:
        self.steps.append("promise taken back")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Bucket:
    bucket: Bucket = {}

    def listed(client: Any, name: str, prefix: str) -> Iterator[ListedObject]:
        yield from listing({key: content for key, content in bucket.items() if key.startswith(prefix)})

    monkeypatch.setattr(tasks, "settings", lambda: settings)
    monkeypatch.setattr(tasks, "S3Hook", lambda conn_id: type("Hook", (), {"get_conn": lambda self: Encrypted()})())
    monkeypatch.setattr(tasks, "with_quick_times", lambda client: client)
    monkeypatch.setattr(tasks, "list_batch", listed)
    return bucket


def test_a_run_takes_back_its_promise_before_it_lists(monkeypatch: pytest.MonkeyPatch, tables: Tables, bucket: Bucket) -> None:
    """Later, an upload between the listing and the promise's end would be left to a run that has listed already."""
    bucket[f"images/{DAY}/kiwi/a.jpg"] = b"a"
    steps: list[str] = []
    real = tasks.list_batch

    def listed(*arguments: Any) -> Iterator[ListedObject]:
        steps.append("listed")
        return real(*arguments)

    monkeypatch.setattr(tasks, "list_batch", listed)
    monkeypatch.setattr(tasks, "get_current_context", dict)
    monkeypatch.setattr(tasks, "turns_of", lambda context, settings: Turns(steps))
    monkeypatch.setattr(tasks, "launcher_for", lambda settings: type("Ready", (), {"prepare": lambda self, backbone: None})())
    planned = tasks.plan_batch.function()
    assert steps == ["promise taken back", "listed"]
    assert planned["stages"] == ("featurize",)
    (entry,) = read_entries(tables.warehouse, read_head(tables.warehouse, planned["input_digest"]))
    assert entry.group == str(entry.size_bytes), "an ETag tells nothing under SSE-KMS"


def test_reconciling_finds_what_differs_and_what_was_left_half_way(
    monkeypatch: pytest.MonkeyPatch, tables: Tables, settings: Settings, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    gone = {f"images/{NEXT}/kiwi/gone.jpg": b"gone"}
    head = plan(tables, settings, NEXT, gone)
    assert head is not None
    with killed_after(2, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, gone))
    bucket[f"images/{DAY}/kiwi/a.jpg"] = b"a"
    events = Events()
    tasks.find_differences.function(outlet_events=events)
    assert events.added[UPLOADS] == [DAY, NEXT]
    assert events.added[FEATURES] == []
    monkeypatch.setattr(tasks, "settings", lambda: replace(settings, batch_key_format="%Y%m%d"))
    with pytest.raises(AirflowSkipException):
        tasks.find_differences.function(outlet_events=Events())
    assert f"batch {NEXT} was left half-way, and is no key" in caplog.text


def test_reconciling_starts_the_model_where_it_lacks_a_batch(tables: Tables, settings: Settings, bucket: Bucket) -> None:
    run_batch(tables, settings, DAY, {f"images/{DAY}/kiwi/{n}.jpg": b"%d" % n for n in range(4)})
    events = Events()
    tasks.wake_model.function(outlet_events=events)
    assert len(events.added[FEATURES]) == 1
