"""Target `databricks`: runs of a Python wheel task on serverless compute, a new job cluster, or a cluster that is there."""

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import Source
from orchard_jobs.contract.locations import below
from orchard_jobs.escaping import escaping_logger
from packaging.requirements import Requirement

from orchard.deployment.deployed_package import check_package
from orchard.deployment.package import WHEEL
from orchard.launchers.request import JobRequest, check_deployed, job_argv
from orchard.launchers.resumable_job import LAST_LINES, JobState, ResumableJob
from orchard.settings import Settings

log = escaping_logger(__name__)
# Python 3.12, Spark 4.0: the same on serverless compute and on a cluster.
_ENVIRONMENT_VERSION = "4"
_CLUSTER = {
    "spark_version": "17.3.x-scala2.13",
    "node_type_id": "m6i.xlarge",
    # The access mode whose Python workers have a network.
    "data_security_mode": "SINGLE_USER",
    "aws_attributes": {"availability": "SPOT_WITH_FALLBACK", "first_on_demand": 1, "zone_id": "auto"},
}
# With engine `cuda`: a GPU needs the runtime that has its driver; four tasks feed it.
_GPU_CLUSTER = {
    "spark_version": "17.3.x-gpu-ml-scala2.13",
    "node_type_id": "g5.xlarge",
    "spark_conf": {"spark.task.resource.gpu.amount": "0.25"},
}
_WITH_NETWORK = ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED", "LEGACY_SINGLE_USER", "NONE")


@dataclass(frozen=True)
class DatabricksLauncher:
    """Submits runs through DatabricksSubmitRunOperator; the deployed wheel is what they run."""

    settings: Settings

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return the operator; it waits in the triggerer, where the wait holds no worker slot."""
        settings = self.settings
        task: dict[str, object] = {
            "task_key": request.stage,
            "python_wheel_task": {
                "package_name": "orchard_jobs",
                "entry_point": "orchard-jobs-task",
                "parameters": job_argv(request, settings, self._source()),
            },
            # Airflow retries, with a token that identifies the attempt.
            "max_retries": 0,
        }
        wheel, others = below(str(settings.jobs.uri), WHEEL), _requirements("hosted", "heif", settings.backbone.engine)
        cluster = settings.databricks.cluster
        environments = None
        if settings.databricks.is_serverless:
            task |= {"environment_key": "jobs", "disable_auto_optimization": True}
            spec = {"environment_version": _ENVIRONMENT_VERSION, "dependencies": [wheel, *others]}
            environments = [{"environment_key": "jobs", "spec": spec}]
        else:
            where = {"existing_cluster_id": cluster} if isinstance(cluster, str) else {"new_cluster": self._new_cluster(cluster)}
            task |= where | {"libraries": [{"whl": wheel}, *({"pypi": {"package": package}} for package in others)]}
        return SubmitDatabricksRun(
            request=request,
            warehouse=settings.warehouse,
            task_id=request.stage,
            trigger_rule=request.trigger_rule,
            pool="spark",
            databricks_conn_id=settings.databricks.conn_id,
            run_name=f"orchard-{request.stage}",
            tasks=[task],
            environments=environments,
            timeout_seconds=settings.jobs.minutes * 60,
            polling_period_seconds=settings.runs.job_poll_seconds,
            deferrable=True,
            # The token finds the run, even if the worker died before it could record what it had started.
            durable=False,
        )

    def prepare(self, backbone: Backbone) -> None:
        """See that the backbone and the package were deployed, and are whole; ConfigurationError when not."""
        check_deployed(self.settings, backbone)
        check_package(str(self.settings.jobs.uri), self.settings.databricks.conn_id, (WHEEL,))

    def _source(self) -> Source:
        """Return who can read images there: a cluster's id alone does not show whether its workers have a network."""
        cluster = self.settings.databricks.cluster
        has_network = isinstance(cluster, dict) and (_CLUSTER | cluster)["data_security_mode"] in _WITH_NETWORK
        return "fetch" if has_network else "spark"

    def _new_cluster(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a new cluster: those that are given, and defaults for the others."""
        size = {} if "num_workers" in given else {"autoscale": {"min_workers": 1, "max_workers": self.settings.jobs.executors}}
        gpu = _GPU_CLUSTER if self.settings.backbone.engine == "cuda" else {}
        own: dict[str, Any] = _CLUSTER | gpu | size | {"custom_tags": self.settings.jobs.tags | {"orchard": "jobs"}}
        if "instance_pool_id" in given:  # a pool has its own
            own = {name: value for name, value in own.items() if name not in ("node_type_id", "aws_attributes")}
        parts = {name: own[name] | value for name, value in given.items() if isinstance(value, dict) and name in own}
        return own | given | parts


def _requirements(*extras: str) -> list[str]:
    """Return what the jobs' extras add to a platform that has a Spark of its own, on Linux."""
    found = [Requirement(text) for text in importlib.metadata.requires("orchard-jobs") or []]
    there = {"sys_platform": "linux", "platform_machine": "x86_64"}
    asked = [one for one in found if one.marker and any(one.marker.evaluate(there | {"extra": extra}) for extra in extras)]
    for one in asked:
        one.marker = None
    # An extra may name another one of the same package.
    return [text for one in asked for text in (_requirements(*one.extras) if one.name == "orchard-jobs" else [str(one)])]


class SubmitDatabricksRun(ResumableJob, DatabricksSubmitRunOperator):
    """The stock operator, and what Orchard adds to it.

    - The stock token is one text for all tries, and Databricks always answers it with the run that it made first. A retry would
      only meet the failed run again. Here the token names the work and the attempt. A retry reaches a run that is still active;
      after a recorded failure the next attempt begins.
    - The stock operator reports only the first line of a failed run's error. Here the task's log has its trace and output, too.
    """

    vendor = "Databricks run"

    def __init__(self, *, request: JobRequest, warehouse: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.request = request
        self.warehouse = warehouse

    def execute(self, context: Any) -> None:
        """Submit the run of the current attempt, or reach it where it runs."""
        self.idempotency_token = self.begin(context)
        self._hook.under_way = self.under_way and int(self.under_way["run_id"])
        self._hook.on_submitted = lambda run_id: self.record_start(context, {"run_id": str(run_id)})
        try:
            super().execute(context)
        except AirflowException as error:
            if self.run_id is None:
                raise
            raise self.failure(context, {"run_id": str(self.run_id)}, error) from error

    def execute_complete(self, context: Any, event: dict[str, Any]) -> None:
        """End the task as the run ended; if the run failed, record that and raise JobError with the reason."""
        try:
            super().execute_complete(context, event)
        except AirflowException as error:
            raise self.failure(context, self.recorded_job(context), error) from error

    def job_state(self, job: dict[str, str]) -> JobState:
        """See ResumableJob."""
        try:
            state = self._hook.get_run_state(int(job["run_id"]))
        except DatabricksApiError as error:
            if error.http_status_code not in (400, 404):
                raise
            return JobState("GONE", f"Databricks no longer knows it: {error}", is_over=True)
        name, is_ending = state.result_state or state.life_cycle_state, state.life_cycle_state == "TERMINATING"
        return JobState(name, state.state_message, state.is_terminal, is_ending)

    def cancel(self, job: dict[str, str]) -> None:
        """See ResumableJob."""
        self._hook.cancel_run(int(job["run_id"]))

    def last_lines(self, job: dict[str, str]) -> list[str]:
        """Return the last lines of a run's output, then of its error's trace, the error itself last."""
        lines: list[str] = []
        try:
            for task in self._hook.get_run(int(job["run_id"])).get("tasks", []):
                output = self._hook.get_run_output(task["run_id"])
                for name in ("logs", "error_trace", "error"):
                    lines += str(output.get(name) or "").splitlines()[-LAST_LINES:]
        except AirflowException as error:
            log.warning("the output of run %s cannot be read: %s", job["run_id"], error)
        return lines

    def _get_hook(self, caller: str) -> DatabricksHook:
        return _Hook(
            self.databricks_conn_id,
            retry_limit=self.databricks_retry_limit,
            retry_delay=self.databricks_retry_delay,
            retry_args=self.databricks_retry_args,
            caller=caller,
        )


class _Hook(DatabricksHook):
    """The stock hook, which submits nothing while a run is under way, and reports a run's id as soon as it is submitted."""

    under_way: int | None = None
    on_submitted: Any = None

    def submit_run(self, json: dict[str, Any]) -> int:
        run_id = self.under_way or int(super().submit_run(json))
        self.on_submitted(run_id)
        return run_id
