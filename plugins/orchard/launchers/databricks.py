"""Target `databricks`: runs of a Python wheel task on serverless compute, a new job cluster, or a cluster that is there."""

import importlib.metadata
import logging
import time
from dataclasses import dataclass
from typing import Any

from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.providers.databricks.hooks.databricks import DatabricksHook, RunState
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import Source
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse
from packaging.requirements import Requirement

from orchard.attempts import Attempts
from orchard.launchers.request import JobRequest, check_deployed, job_argv, planned_work, skip_without_work
from orchard.package import WHEEL
from orchard.settings import Settings

log = logging.getLogger(__name__)
_POLL_SECONDS = 15
_LAST_LINES = 30
_FOUND = "databricks_run"
# Python 3.12, Spark 4.0: the same on serverless compute and on a cluster.
_ENVIRONMENT_VERSION = "4"
_CLUSTER = {
    "spark_version": "17.3.x-scala2.13",
    "node_type_id": "m6i.xlarge",
    # The access mode whose Python workers have a network.
    "data_security_mode": "SINGLE_USER",
    "aws_attributes": {"availability": "SPOT_WITH_FALLBACK", "first_on_demand": 1, "zone_id": "auto"},
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
            # Airflow retries, with a token that tells an attempt from the next.
            "max_retries": 0,
        }
        wheel, others = f"{settings.jobs_uri}/{WHEEL}", _requirements("hosted", settings.engine)
        cluster = settings.databricks_cluster
        environments = None
        if cluster == "serverless":
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
            databricks_conn_id=settings.databricks_conn_id,
            run_name=f"orchard-{request.stage}",
            tasks=[task],
            environments=environments,
            timeout_seconds=settings.job_minutes * 60,
            polling_period_seconds=_POLL_SECONDS,
            deferrable=True,
            # The token does it, and does it also when the worker died before it could write down what it had started.
            durable=False,
        )

    def prepare(self, backbone: Backbone) -> None:
        """See that the network was deployed; ConfigurationError when not."""
        check_deployed(self.settings, backbone)

    def _source(self) -> Source:
        """Return who can read images there: of a cluster by its id alone it cannot be told whether workers have a network."""
        cluster = self.settings.databricks_cluster
        has_network = isinstance(cluster, dict) and (_CLUSTER | cluster)["data_security_mode"] in _WITH_NETWORK
        return "fetch" if has_network else "spark"

    def _new_cluster(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a new cluster: those that are given, and defaults for the others."""
        size = {} if "num_workers" in given else {"autoscale": {"min_workers": 1, "max_workers": self.settings.executors}}
        own: dict[str, Any] = _CLUSTER | size | {"custom_tags": self.settings.job_tags | {"orchard": "jobs"}}
        parts = {name: own[name] | value for name, value in given.items() if isinstance(value, dict) and name in own}
        return own | given | parts


def _requirements(*extras: str) -> list[str]:
    """Return what the jobs' extras add to a platform that has a Spark of its own."""
    found = map(Requirement, importlib.metadata.requires("orchard-jobs") or [])
    return [
        f"{one.name}{one.specifier}"
        for one in found
        if one.marker and any(one.marker.evaluate({"extra": extra}) for extra in extras)
    ]


class SubmitDatabricksRun(DatabricksSubmitRunOperator):
    """The stock operator, with what it does not do by itself.

    - Its token is one text for all tries, and Databricks answers it for ever with the run that it first made: a run that failed
      would be met again by each retry. Here the token names the work and the attempt: a retry reaches a run that is still under
      way, and after a known bad end the next attempt begins.
    - Of a failed run it tells the error's first line alone: here its trace and last output stand in the task's log.
    """

    def __init__(self, *, request: JobRequest, warehouse: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.request = request
        self.warehouse = warehouse

    def execute(self, context: Any) -> None:
        """Submit the run of the current attempt, or reach it where it runs."""
        skip_without_work(self.warehouse, self.request, context)
        attempt = self._next_attempt(context)
        self.idempotency_token = self._attempts(context).token(attempt)
        self._hook.on_submitted = lambda run_id: self._note_start(context, attempt, run_id)
        try:
            super().execute(context)
        except AirflowException as error:
            if self.run_id is None:
                raise
            raise self._bad_end(context, attempt, self.run_id) from error

    def execute_complete(self, context: Any, event: dict[str, Any]) -> None:
        """End well, or record the bad end and raise JobError with its reason."""
        try:
            super().execute_complete(context, event)
        except AirflowException as error:
            found = context["ti"].xcom_pull(task_ids=self.task_id, key=_FOUND)
            raise self._bad_end(context, found["attempt"], found["run_id"]) from error

    def _get_hook(self, caller: str) -> DatabricksHook:
        return _Hook(
            self.databricks_conn_id,
            retry_limit=self.databricks_retry_limit,
            retry_delay=self.databricks_retry_delay,
            retry_args=self.databricks_retry_args,
            caller=caller,
        )

    def _attempts(self, context: Any) -> Attempts:
        return Attempts(Warehouse.at(self.warehouse), planned_work(self.request, context))

    def _note_start(self, context: Any, attempt: int, run_id: int) -> None:
        self._attempts(context).note_start(attempt, {"run_id": str(run_id)})
        context["ti"].xcom_push(key=_FOUND, value={"run_id": run_id, "attempt": attempt})

    def _next_attempt(self, context: Any) -> int:
        """Return the attempt to make or to reach, after recording the end of a run that ended unseen."""
        attempts = self._attempts(context)
        attempt = attempts.current
        started = attempts.started(attempt)
        if started is None:
            return attempt
        state = self._ended_or_running(int(started["run_id"]))
        if not state.is_terminal:
            log.info("reaching run %s of attempt %s, which is %s", started["run_id"], attempt, state.life_cycle_state)
            return attempt
        skip_without_work(self.warehouse, self.request, context)  # it may have finished just now
        attempts.note_end(attempt, _told(state), state.state_message)
        return attempt + 1

    def _ended_or_running(self, run_id: int) -> RunState:
        """Return a run's state, waiting while it is being ended: beside it a new one would be a second."""
        while True:
            try:
                state: RunState = self._hook.get_run_state(run_id)
            except DatabricksApiError as error:
                if error.http_status_code not in (400, 404):
                    raise
                return RunState("INTERNAL_ERROR", "GONE", f"Databricks no longer knows it: {error}")
            if state.life_cycle_state != "TERMINATING":
                return state
            time.sleep(_POLL_SECONDS / 3)

    def _bad_end(self, context: Any, attempt: int, run_id: int) -> JobError:
        """Return what to raise for a run that did not end well, or that could not be followed: the next try reaches that one."""
        state = self._ended_or_running(run_id)
        if not state.is_terminal:
            return JobError(f"Databricks run {run_id} is {_told(state)}, and could not be followed: the next try reaches it")
        self._attempts(context).note_end(attempt, _told(state), state.state_message)
        lines = self._last_lines(run_id)
        for line in lines:
            log.error("run: %s", line)
        last = next((line for line in reversed(lines) if line.strip()), "it has no output")
        return JobError(f"Databricks run {run_id} is {_told(state)}: {state.state_message or 'no message'}: {last}")

    def _last_lines(self, run_id: int) -> list[str]:
        """Return the last lines of a run's output, then of its error's trace, the error itself last."""
        lines: list[str] = []
        try:
            for task in self._hook.get_run(run_id).get("tasks", []):
                output = self._hook.get_run_output(task["run_id"])
                for name in ("logs", "error_trace", "error"):
                    lines += str(output.get(name) or "").splitlines()[-_LAST_LINES:]
        except AirflowException as error:
            log.warning("the output of run %s cannot be read: %s", run_id, error)
        return lines


class _Hook(DatabricksHook):
    """The stock hook, which also tells of a run as soon as it is submitted."""

    on_submitted: Any = None

    def submit_run(self, json: dict[str, Any]) -> int:
        run_id = int(super().submit_run(json))
        self.on_submitted(run_id)
        return run_id


def _told(state: RunState) -> str:
    return str(state.result_state or state.life_cycle_state)
