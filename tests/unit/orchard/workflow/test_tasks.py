"""The tasks at the edge to Airflow: what they emit, and how a use case's outcome becomes Airflow's."""

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from orchard.models.model import current_promotion
from orchard.outcomes import Done, Failed, Skipped
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.workflow.assets import FEATURES, UPLOADS
from orchard.workflow.error_mapping import airflow_value
from orchard.workflow.tasks import model, uploads
from orchard_jobs.contract.layout import projection_plan_path
from orchard_jobs.errors import AuditError, ConfigurationError
from support.flow import project_model, run_batch
from support.listed_bucket import ListedBucket

DAY = "2026-01-01"
Bucket = dict[str, bytes]


class Events:
    """Outlet events that remember the partitions."""

    def __init__(self) -> None:
        self.added: dict[Any, list[str]] = {UPLOADS: [], FEATURES: []}

    def __getitem__(self, asset: Any) -> Any:
        added = self.added[asset]
        return type("Adder", (), {"add_partitions": lambda self, keys: added.extend(keys)})()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Bucket:
    bucket: Bucket = {}
    for module in (uploads, model):
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
    events = Events()
    uploads.find_differences.function(outlet_events=events)
    assert events.added == {UPLOADS: [DAY], FEATURES: []}


def test_reconciling_starts_the_model_where_it_lacks_a_batch(tables: Tables, settings: Settings, bucket: Bucket) -> None:
    run_batch(tables, settings, DAY, {f"images/{DAY}/kiwi/{n}.jpg": b"%d" % n for n in range(4)})
    events = Events()
    uploads.wake_model.function(outlet_events=events)
    assert len(events.added[FEATURES]) == 1


def test_a_model_run_that_an_earlier_release_planned_is_published(
    tables: Tables, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It planned without a decision's file: what it decided is an XCom of its own."""
    run_batch(tables, settings, DAY, {f"images/{DAY}/kiwi/{n}.jpg": b"%d" % n for n in range(4)})
    decided, report = project_model(tables, settings)
    assert decided.projection is not None
    xcom = {
        "action": "fit",
        "reason": decided.reason,
        "considered": decided.considered,
        "model_id": decided.model_id,
        "gain": None,
        "distance": None,
        "judged": None,
        "projection": None,
    }

    class TaskInstance:
        def xcom_pull(self, task_ids: str, key: str) -> dict[str, Any]:
            assert (task_ids, key) == ("plan_model", "decided")
            return xcom

    run = type("DagRun", (), {"run_id": "of an earlier release"})()
    monkeypatch.setattr(model, "get_current_context", lambda: {"dag_run": run, "ti": TaskInstance()})
    uri = tables.warehouse.uri_of(projection_plan_path(report.input_digest))
    planned = {"input_uri": uri, "input_digest": report.input_digest, "backbone": report.backbone, "stages": ["project"]}
    model.publish_model.function(planned, "passed")
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    assert promotion.model_id == decided.model_id
