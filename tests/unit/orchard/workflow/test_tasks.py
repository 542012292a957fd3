"""The tasks at the edge to Airflow: what they emit, and how a use case's outcome becomes Airflow's."""

import json
from dataclasses import asdict, dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from orchard.models.model import current_promotion
from orchard.outcomes import Done, Failed, Skipped
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard.workflow.assets import FEATURES, UPLOADS
from orchard.workflow.error_mapping import airflow_value
from orchard.workflow.tasks import batch, pca, uploads
from orchard_jobs.contract.layout import ModelPlanPath
from orchard_jobs.errors import AuditError, ConfigurationError
from support.fake_jobs import FakeJobs
from support.faked_flow import decision_of, lock_of, plan, project_model, run_batch
from support.listed_bucket import ListedBucket

DAY, NEXT = "2026-01-01", "2026-01-02"
Bucket = dict[str, bytes]


@dataclass
class OutletEvent:
    """What a task hands on with an asset: partitions, and an extra."""

    partitions: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def add_partitions(self, keys: list[str]) -> None:
        self.partitions += keys


@dataclass
class TaskInstance:
    """A task instance as far as tasks ask it: the queued runs of its DAG, and one XCom."""

    queued_runs: int = 0
    decided: dict[str, Any] | None = None

    def get_dr_count(self, dag_id: str, states: list[str]) -> int:
        assert (dag_id, states) == ("pca_model", ["queued"])
        return self.queued_runs

    def xcom_pull(self, task_ids: str, key: str) -> dict[str, Any] | None:
        assert (task_ids, key) == ("plan_model", "decided")
        return self.decided


def in_context(monkeypatch: pytest.MonkeyPatch, module: ModuleType, **context: Any) -> None:
    """Give the tasks of a module a run's context."""
    run = SimpleNamespace(run_id="run", dag_id="pca_model")
    monkeypatch.setattr(module, "get_current_context", lambda: {"dag_run": run, "ti": TaskInstance()} | context)


def four_images() -> Bucket:
    return {f"images/{DAY}/kiwi/{n}.jpg": b"%d" % n for n in range(4)}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Bucket:
    bucket: Bucket = {}
    for module in (batch, uploads, pca):
        monkeypatch.setattr(module, "settings", lambda: settings)
        monkeypatch.setattr(module, "tables", lambda: Tables.at(settings.warehouse))
    monkeypatch.setattr(uploads, "landing_zone_of", lambda settings: ListedBucket(bucket))
    return bucket


def test_a_done_use_case_hands_on_its_value() -> None:
    assert airflow_value(Done(3)) == 3


def test_a_skipped_use_case_skips_its_task() -> None:
    with pytest.raises(AirflowSkipException, match="nothing to do"):
        airflow_value(Skipped("nothing to do"))


@pytest.mark.parametrize("error", [ConfigurationError("no bucket"), AuditError("rows are missing")])
def test_a_failed_use_case_fails_its_task_for_good(error: ConfigurationError | AuditError) -> None:
    with pytest.raises(AirflowFailException, match=str(error)):
        airflow_value(Failed(error))


def test_reconciling_emits_an_event_for_each_batch_that_differs(bucket: Bucket) -> None:
    bucket[f"images/{DAY}/kiwi/a.jpg"] = b"a"
    event = OutletEvent()
    uploads.find_differences.function(outlet_events={UPLOADS: event})
    assert event.partitions == [DAY]


def test_reconciling_starts_the_model_where_it_lacks_a_batch(tables: Tables, settings: Settings, bucket: Bucket) -> None:
    run_batch(tables, settings, DAY, four_images())
    event = OutletEvent()
    uploads.wake_model.function(outlet_events={FEATURES: event})
    assert event.partitions == ["reconciled"]


def arrived(monkeypatch: pytest.MonkeyPatch, *keys: str) -> list[str]:
    """Return the batches that image_arrivals announces for messages of uploads of some keys."""
    records = [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "landing"}, "object": {"key": key}}} for key in keys]
    messages = [{"Body": json.dumps({"Records": [record]})} for record in records]
    received = SimpleNamespace(extra={"payload": {"message_batch": messages}})
    monkeypatch.setattr(uploads, "upload_messages", lambda settings: "the queue")
    in_context(monkeypatch, uploads, triggering_asset_events={"the queue": [received]})
    event = OutletEvent()
    uploads.emit_batches.function(outlet_events={UPLOADS: event})
    return event.partitions


@pytest.mark.usefixtures("bucket")
def test_messages_announce_each_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = (f"images/{NEXT}/kiwi/a.jpg", f"images/{DAY}/kiwi/a.jpg", f"images/{DAY}/kiwi/b.jpg")
    assert arrived(monkeypatch, *keys) == [DAY, NEXT]


@pytest.mark.usefixtures("bucket")
def test_messages_of_no_batch_announce_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AirflowSkipException, match="none of the 1 messages announces an upload"):
        arrived(monkeypatch, "elsewhere/a.jpg")


def test_the_plans_xcom_leaves_the_decision_out(
    tables: Tables, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier release reads it, and knows no decision; the later one reads what has none."""
    monkeypatch.setattr(batch, "landing_zone_of", lambda settings: ListedBucket(four_images()))
    monkeypatch.setattr(batch, "batch_lock_of", lambda context, settings: lock_of(DAY))
    monkeypatch.setattr(batch, "_prepare", lambda backbone: None)
    in_context(monkeypatch, batch)
    planned = batch.plan_batch.function()
    assert set(planned) == {"input_uri", "input_digest", "backbone", "stages"}
    assert PlannedJobs(**planned).decision is None


def test_a_published_batch_is_named_in_its_event(
    tables: Tables, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = plan(tables, settings, DAY, four_images())
    assert head is not None
    FakeJobs(tables, four_images()).featurize(head)
    in_context(monkeypatch, batch)
    event = OutletEvent()
    planned = asdict(PlannedJobs.of_batch(tables.warehouse, head))
    batch.publish_batch.function(planned, "passed", outlet_events={FEATURES: event})
    assert event.extra == {"manifest_digest": head.digest, "version": 1}


def test_a_model_run_gives_way_to_a_queued_one(
    tables: Tables, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_batch(tables, settings, DAY, four_images())
    in_context(monkeypatch, pca, ti=TaskInstance(queued_runs=1))
    with pytest.raises(AirflowSkipException, match="a later run of this DAG is queued"):
        pca.plan_model.function()
    in_context(monkeypatch, pca, ti=TaskInstance(queued_runs=0))
    assert pca.plan_model.function()["stages"] == ("project",)


def test_a_model_run_that_an_earlier_release_planned_is_published(
    tables: Tables, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It planned without a decision's file: what it decided is an XCom of its own."""
    run_batch(tables, settings, DAY, four_images())
    planned = project_model(tables, settings)
    decided = asdict(decision_of(tables, planned)) | {"projection": None}
    tables.warehouse.delete(str(ModelPlanPath(str(planned.decision))))
    in_context(monkeypatch, pca, ti=TaskInstance(decided=decided))
    of_earlier = {name: value for name, value in asdict(planned).items() if name != "decision"}
    pca.publish_model.function(of_earlier, "passed")
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    assert promotion.model_id == decided["model_id"]
