"""DAG runs in this process, by Airflow's `dag.test`: real tasks, a real metadata database, fake jobs, a bucket in memory."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import airflow.models.dagrun
import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, BaseOperator
from orchard import launchers
from orchard.batch.manifests import read_head
from orchard.batch.run import LineageRecord
from orchard.landing_zone.batch_lock import BatchLock, RunName
from orchard.launchers.request import JobRequest, skip_without_work
from orchard.models.model_plan import read_projection
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard.workflow import context, flow, sensors
from orchard.workflow.tasks import batch as batch_tasks
from orchard.workflow.tasks import uploads as upload_tasks
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.jobs import JobReport

from support.changed_settings import switch_backbone
from support.fake_jobs import FakeJobs
from support.listed_bucket import ListedBucket
from support.repository import ROOT

Batch = dict[str, bytes]
DIMENSION = 8


@dataclass
class Airflow:
    """One Airflow with one warehouse.

    Attributes:
        tables: the warehouse's tables.
        bucket: the landing zone's objects by key.
        after_job: called with the report of each job, before its task ends.
        prepared: the ids of the backbones that the target was asked about.
        recorded: what was handed on as lineage.
        locks: the locks that planning tasks held.
        is_known: whether the metadata database knows the DAGs.
        last_state: how the last run ended.
    """

    tables: Tables
    bucket: Batch = field(default_factory=dict)
    after_job: Callable[[JobReport], None] = lambda report: None
    prepared: set[str] = field(default_factory=set)
    recorded: list[LineageRecord] = field(default_factory=list)
    locks: list[BatchLock] = field(default_factory=list)
    is_known: bool = False
    last_state: str = ""

    @cached_property
    def dags(self) -> dict[str, DAG]:
        """The DAGs by id, read once."""
        return DagBag(ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags").dags

    def lose_tables(self) -> None:
        """Remove the whole warehouse."""
        shutil.rmtree(self.tables.warehouse.uri.removeprefix("file://"))

    def run(self, dag_id: str, partition_key: str | None = None, left_out: str | None = None, **variables: str) -> dict[str, str]:
        """Run a DAG once and return the state of each task.

        Args:
            dag_id: the DAG.
            partition_key: the run's partition key.
            left_out: a task that counts as done without being run.
            variables: settings of this run alone.
        """
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"ORCHARD_{name}", value)
            context.settings.cache_clear()
            create = airflow.models.dagrun.get_or_create_dagrun

            def create_keyed(**arguments: Any) -> Any:
                run = create(**arguments)
                run.partition_key = partition_key
                arguments["session"].commit()
                return run

            # `dag.test` takes no partition key.
            patch.setattr(airflow.models.dagrun, "get_or_create_dagrun", create_keyed)
            if self.is_known:  # each `dag.test` would read and store all DAG files once more
                patch.setattr(DagBundlesManager, "get_all_dag_bundles", lambda manager: [])
            run = self.dags[dag_id].test(logical_date=None, run_conf={"quiet_seconds": 0}, mark_success_pattern=left_out)
            states = {instance.task_id: str(instance.state) for instance in run.get_task_instances()}
        self.is_known, self.last_state = True, str(run.state)
        context.settings.cache_clear()
        return states

    def landing_zone(self) -> ListedBucket:
        """Return the bucket as a plan lists it: after its run withdrew its promise to list."""

        def check_promise() -> None:
            for lock in self.locks[-1:]:
                other = replace(lock, me=RunName("image_batches", "another"), is_in=lambda name, states: True)
                assert other.run_that_will_list() != lock.me, "an upload during the listing would be left to this run"

        return ListedBucket(self.bucket, check_promise)


class FakeJob(BaseOperator):
    """A job's task: skipped as the launchers' operators are, else done by the fake jobs."""

    def __init__(self, *, request: JobRequest, airflow: Airflow, **arguments: Any) -> None:
        super().__init__(task_id=request.stage, trigger_rule=request.trigger_rule, **arguments)
        self.request, self.airflow = request, airflow

    def execute(self, context: Any) -> None:
        """Do the planned stage."""
        tables = self.airflow.tables
        skip_without_work(tables.warehouse.uri, self.request, context)
        planned = PlannedJobs(**context["ti"].xcom_pull(task_ids=self.request.plan_task))
        jobs = FakeJobs(tables, self.airflow.bucket)
        if self.request.stage in ("project", "classify"):
            report: JobReport | None = jobs.run_planned(read_projection(tables.warehouse, planned.input_digest))
        else:
            head = read_head(tables.warehouse, planned.input_digest)
            featurized = jobs.featurize(head)
            report = featurized if self.request.stage == "featurize" else jobs.reduce(head, featurized)
        assert report is not None
        self.airflow.after_job(report)


@dataclass(frozen=True)
class FakeLauncher:
    """A target whose jobs run in the task itself."""

    airflow: Airflow

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return the task of a job."""
        return FakeJob(request=request, airflow=self.airflow)

    def prepare(self, backbone: Backbone) -> None:
        """Remember the backbone."""
        self.airflow.prepared.add(backbone.id)


@contextmanager
def airflow_with(folder: Path) -> Iterator[Airflow]:
    """Give an Airflow whose DAGs run over an empty warehouse and an empty bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WAREHOUSE": str(folder / "warehouse"), "COMPONENTS": "2", "RETRIES": "0"}.items():
            patch.setenv(f"ORCHARD_{name}", value)
        # A small one, so that five images are enough for moments.
        switch_backbone(patch, replace(backbone_named("efficientnet_lite0"), dimension=DIMENSION))
        settings = Settings.from_environment()
        airflow = Airflow(Tables.at(settings.warehouse))
        lock_of: Callable[[Any, Settings], BatchLock] = sensors.batch_lock_of

        def remembered_lock(task_context: Any, of: Settings) -> BatchLock:
            airflow.locks.append(lock_of(task_context, of))
            return airflow.locks[-1]

        for module in (launchers, flow, batch_tasks):
            patch.setattr(module, "launcher_for", lambda of: FakeLauncher(airflow))
        for edge in (batch_tasks, upload_tasks):
            patch.setattr(edge, "landing_zone_of", lambda of: airflow.landing_zone())
        patch.setattr(sensors, "landing_zone_of", lambda of: ListedBucket(airflow.bucket))
        patch.setattr(batch_tasks, "batch_lock_of", remembered_lock)
        patch.setattr(batch_tasks, "emit_batch", lambda of, batch: airflow.recorded.append(batch))
        yield airflow
    context.settings.cache_clear()
