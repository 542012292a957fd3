"""The DAG files: they parse, read as the graph, and make the keys that backfills and daily runs need."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction
from orchard import tasks
from orchard.settings import Settings
from orchard.timetables import batch_timetable, last_scheduled_day

ROOT = Path(__file__).parents[2]
DAGS = {
    "image_batches": ["wait_for_uploads", "plan_batch", "featurize", "reduce", "validate", "publish", "record_lineage"],
    "pca_model": ["plan_model", "project", "validate", "publish"],
    "clean_warehouse": ["clean_warehouse"],
}


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> DagBag:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHARD_WAREHOUSE", str(tmp_path_factory.mktemp("warehouse")))
        tasks.settings.cache_clear()
        found = DagBag(ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags")
    tasks.settings.cache_clear()
    return found


def test_every_dag_file_is_listed_here(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(DAGS)
    assert sorted(path.stem for path in (ROOT / "dags").glob("*.py")) == sorted(DAGS)


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dag_is_a_chain_of_its_tasks(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert [task.task_id for task in dag.topological_sort()] == DAGS[dag_id]
    for before, after in zip(DAGS[dag_id], DAGS[dag_id][1:], strict=False):
        assert after in dag.get_task(before).downstream_task_ids


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
    assert {task_id for task_id, pool in pools.items() if pool == "spark"} == {"featurize", "reduce", "project"}


def test_one_model_run_at_a_time(bag: DagBag) -> None:
    assert bag.dags["pca_model"].max_active_runs == 1


def settings(**variables: str) -> Settings:
    environment = {f"ORCHARD_{name}": value for name, value in variables.items()}
    return Settings.from_environment({"ORCHARD_WAREHOUSE": "/w", **environment})


def scheduler_timetable(of: Settings) -> Any:
    return decode_timetable(encode_timetable(batch_timetable(of)))


def test_the_run_of_a_day_has_the_key_of_the_day_before() -> None:
    timetable = scheduler_timetable(settings())
    info = timetable.next_dagrun_info_v2(
        last_dagrun_info=None,
        restriction=TimeRestriction(earliest=datetime(2026, 1, 5, tzinfo=UTC), latest=None, catchup=True),
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
    latest = last_scheduled_day(none)
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
