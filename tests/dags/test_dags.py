"""The DAG files: they parse, read as the graph, and make the keys that backfills and daily runs need."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction
from orchard.settings import Settings
from orchard.workflow import context
from orchard.workflow.assets import FEATURES, UPLOADS, upload_messages
from orchard.workflow.sensors import WaitForUploads
from orchard.workflow.timetables import batch_timetable, last_scheduled_day
from support.repository import ROOT

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
BATCH_FLOW = ["wait_for_uploads", "plan_batch", "featurize", "reduce", "validate", "publish", "record_lineage", "refresh_view"]
DAGS = {
    "image_arrivals": ["emit_batches"],
    "image_batches": BATCH_FLOW,
    "image_batches_on_arrival": BATCH_FLOW,
    "reconcile_uploads": ["find_differences", "wake_model"],
    "pca_model": ["plan_model", "project", "validate", "publish", "refresh_view"],
    "classifier_model": ["plan_model", "classify", "validate", "publish"],
    "clean_warehouse": ["clean_warehouse", "refresh_view", "verify_warehouse"],
}


def dags_with(folder: Path, **variables: str) -> DagBag:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHARD_WAREHOUSE", str(folder))
        for name, value in variables.items():
            patch.setenv(f"ORCHARD_{name}", value)
        context.settings.cache_clear()
        found = DagBag(ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags")
    context.settings.cache_clear()
    return found


def test_a_parse_loads_only_what_its_target_needs(tmp_path: Path) -> None:
    """Each task parses its DAG anew, so an idle provider would cost each of them."""
    script = f"import runpy, sys; runpy.run_path({str(ROOT / 'dags' / 'image_batches.py')!r}); print(*sys.modules)"
    environment = os.environ | {"ORCHARD_WAREHOUSE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "orchard.launchers.local" in loaded
    assert not {"airflow.providers.databricks.hooks.databricks", "orchard.launchers.emr"} & set(loaded)


def test_a_task_that_a_preloaded_server_forks_imports_nothing_heavy(tmp_path: Path) -> None:
    # The server reads no setting: a wrong one must fail in a task, which tells it, and not in the server.
    lines = ["import os, runpy, sys, orchard.preload", "os.environ.pop('ORCHARD_COMPONENTS')", "before = set(sys.modules)"]
    lines += [f"runpy.run_path({str(ROOT / 'dags' / f'{name}.py')!r})" for name in ("image_batches", "pca_model")]
    lines += ["from airflow import plugins_manager", "plugins_manager._get_plugins()", "print(*(set(sys.modules) - before))"]
    environment = os.environ | {"ORCHARD_WAREHOUSE": str(tmp_path), "ORCHARD_COMPONENTS": "abc"}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = done.stdout.splitlines()[-1].split() if done.stdout.strip() else []
    assert len(imported) < 20, imported


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> DagBag:
    return dags_with(tmp_path_factory.mktemp("warehouse"))


def test_every_dag_file_is_listed_here(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(DAGS)
    assert sorted(path.stem for path in (ROOT / "dags").glob("*.py")) == sorted(DAGS)


@pytest.mark.parametrize("dag_id", [dag_id for dag_id in DAGS if dag_id not in ("reconcile_uploads", "clean_warehouse")])
def test_a_dag_is_a_chain_of_its_tasks(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert [task.task_id for task in dag.topological_sort()] == DAGS[dag_id]
    chain = [task_id for task_id in DAGS[dag_id] if task_id != "refresh_view"]
    for before, after in zip(chain, chain[1:], strict=False):
        assert after in dag.get_task(before).downstream_task_ids


def test_a_batch_that_fails_is_shown_and_its_run_still_fails(bag: DagBag) -> None:
    """Airflow judges a run by its last tasks: one that runs whatever happened must not be the only one."""
    dag = bag.dags["image_batches"]
    assert dag.get_task("refresh_view").upstream_task_ids == {"plan_batch", "publish"}
    assert {task.task_id for task in dag.tasks if not task.downstream_task_ids} == {"record_lineage", "refresh_view"}


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dag_file_is_thin_and_documents_itself(bag: DagBag, dag_id: str) -> None:
    lines = (ROOT / "dags" / f"{dag_id}.py").read_text().splitlines()
    assert len(lines) <= 120
    for task_id in DAGS[dag_id]:
        assert f"| {task_id} |" in (bag.dags[dag_id].doc_md or "")
    imported = [line.split()[1].split(".")[0] for line in lines if line.startswith(("from ", "import "))]
    assert set(imported) <= {"airflow", "orchard"}


@pytest.mark.parametrize("dag_id", DAGS)
def test_every_task_is_retried_and_tells_of_its_failure(bag: DagBag, dag_id: str) -> None:
    for task in bag.dags[dag_id].tasks:
        assert task.retries == 2
        assert task.retry_exponential_backoff
        assert task.on_failure_callback


def test_jobs_share_the_pool(bag: DagBag) -> None:
    pools = {task.task_id: task.pool for dag in bag.dags.values() for task in dag.tasks}
    assert {task_id for task_id, pool in pools.items() if pool == "spark"} == {"featurize", "reduce", "project", "classify"}


def test_one_model_run_at_a_time(bag: DagBag) -> None:
    assert {bag.dags[dag_id].max_active_runs for dag_id in ("pca_model", "classifier_model")} == {1}


def test_the_two_reconciling_tasks_do_not_wait_for_each_other(bag: DagBag) -> None:
    for task in bag.dags["reconcile_uploads"].tasks:
        assert not task.upstream_task_ids
    assert bag.dags["reconcile_uploads"].max_active_runs == 1


def is_announced(dag: DAG) -> bool:
    """Tell whether the DAG's runs are started by uploads."""
    waiting = dag.get_task("wait_for_uploads")
    assert isinstance(waiting, WaitForUploads)
    return waiting.is_announced


def test_uploads_start_the_same_flow_as_the_clock(bag: DagBag) -> None:
    clock, arrival = (bag.dags[dag_id] for dag_id in ("image_batches", "image_batches_on_arrival"))
    for task_id in BATCH_FLOW:
        mine, other = clock.get_task(task_id), arrival.get_task(task_id)
        assert (mine.task_type, mine.trigger_rule, mine.pool) == (other.task_type, other.trigger_rule, other.pool)
        assert mine.downstream_task_ids == other.downstream_task_ids
    assert not is_announced(clock)
    assert is_announced(arrival)
    # Whose turn it is stands in the state store of `uploads`, which a task sees only of its inlets and outlets.
    for dag in (clock, arrival):
        assert all(UPLOADS in dag.get_task(task_id).inlets for task_id in ("wait_for_uploads", "plan_batch"))
    assert decode_timetable(encode_timetable(arrival.timetable)).partitioned
    assert UPLOADS in bag.dags["image_arrivals"].get_task("emit_batches").outlets
    assert UPLOADS in bag.dags["reconcile_uploads"].get_task("find_differences").outlets
    assert FEATURES in bag.dags["reconcile_uploads"].get_task("wake_model").outlets


def test_without_a_queue_nothing_is_watched(bag: DagBag) -> None:
    assert upload_messages(settings()) is None
    assert not bag.dags["image_arrivals"].timetable.can_be_scheduled


def test_with_a_queue_its_messages_start_image_arrivals(tmp_path: Path) -> None:
    assert dags_with(tmp_path, UPLOADS_QUEUE=QUEUE).dags["image_arrivals"].timetable.can_be_scheduled


def test_many_messages_of_a_queue_make_one_event() -> None:
    watched = upload_messages(settings(UPLOADS_QUEUE=QUEUE, POLL_SECONDS="0.2"))
    assert watched is not None
    (watcher,) = watched.watchers
    path, arguments = watcher.trigger.serialize()
    assert path == "airflow.providers.amazon.aws.triggers.sqs.SqsSensorTrigger"
    assert (arguments["sqs_queue"], arguments["aws_conn_id"]) == (QUEUE, "aws_default")
    assert (arguments["max_messages"], arguments["num_batches"], arguments["waiter_delay"]) == (10, 10, 1)


def test_reconciling_runs_by_a_setting(bag: DagBag, tmp_path: Path) -> None:
    assert decode_timetable(encode_timetable(bag.dags["reconcile_uploads"].timetable)).summary == "0 * * * *"
    off = dags_with(tmp_path, RECONCILE_SCHEDULE="none").dags["reconcile_uploads"]
    assert not off.timetable.can_be_scheduled


def settings(**variables: str) -> Settings:
    environment = {f"ORCHARD_{name}": value for name, value in variables.items()}
    return Settings.from_environment({"ORCHARD_WAREHOUSE": "/w", **environment})


def scheduler_timetable(of: Settings) -> Any:
    return decode_timetable(encode_timetable(batch_timetable(of)))


def test_the_run_of_a_day_has_the_key_of_the_day_before() -> None:
    timetable = scheduler_timetable(settings())
    info = timetable.next_dagrun_info_v2(
        last_dagrun_info=None,
        restriction=TimeRestriction(earliest=pendulum.datetime(2026, 1, 5), latest=None, catchup=True),
    )
    assert (info.run_after, info.partition_key) == (datetime(2026, 1, 5, tzinfo=UTC), "2026-01-04")


def test_a_range_has_the_keys_of_its_first_and_last_day() -> None:
    infos = scheduler_timetable(settings()).iter_partition_dagrun_infos(
        earliest=datetime(2026, 1, 1, tzinfo=UTC), latest=datetime(2026, 1, 3, tzinfo=UTC)
    )
    assert [info.partition_key for info in infos] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_without_a_schedule_the_clock_starts_nothing() -> None:
    none = settings(SCHEDULE="none")
    assert last_scheduled_day(settings()) is None
    last_day = last_scheduled_day(none)
    assert last_day is not None
    latest = pendulum.instance(last_day)
    info = scheduler_timetable(none).next_dagrun_info_v2(
        last_dagrun_info=None, restriction=TimeRestriction(earliest=latest, latest=latest, catchup=False)
    )
    assert info is None


def test_hourly_batches_have_hourly_keys() -> None:
    hourly = settings(SCHEDULE="0 * * * *", BATCH_KEY_FORMAT="%Y-%m-%dT%H")
    infos = scheduler_timetable(hourly).iter_partition_dagrun_infos(
        earliest=datetime(2026, 1, 1, 22, tzinfo=UTC), latest=datetime(2026, 1, 1, 23, tzinfo=UTC)
    )
    assert [info.partition_key for info in infos] == ["2026-01-01T22", "2026-01-01T23"]
