"""Target `emr_serverless`: job runs of an EMR Serverless application."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.locations import below, prefix_of

from orchard.deployment.deployed_package import check_package
from orchard.deployment.package import ENTRY, ZIP
from orchard.launchers.request import JobRequest, check_deployed, emr_conf, job_argv
from orchard.launchers.resumable_job import JobState, ResumableJob, stored_lines
from orchard.settings import Settings

# A job may wait for capacity before its own time begins to count.
_QUEUE_MINUTES = 60
# Any other word is of a job that runs, or may yet: QUEUED is one that the provider does not know.
_OVER = ("SUCCESS", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class EmrServerlessLauncher:
    """Starts job runs through EmrServerlessStartJobOperator; the deployed package is what they run."""

    settings: Settings

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return the operator; it waits in the triggerer, where the wait holds no worker slot."""
        settings = self.settings
        minutes = settings.jobs.minutes + _QUEUE_MINUTES
        return StartEmrServerlessJob(
            request=request,
            warehouse=settings.warehouse,
            task_id=request.stage,
            trigger_rule=request.trigger_rule,
            pool="spark",
            aws_conn_id=settings.aws_conn_id,
            application_id=str(settings.emr_serverless.application),
            execution_role_arn=str(settings.emr_serverless.role),
            name=f"orchard-{request.stage}",
            job_driver={
                "sparkSubmit": {
                    "entryPoint": below(str(settings.jobs.uri), "run_job.py"),
                    "entryPointArguments": job_argv(request, settings),
                    "sparkSubmitParameters": self._spark_parameters(),
                }
            },
            configuration_overrides={
                "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": prefix_of(settings.jobs.logs_uri)}}
            },
            config={"executionTimeoutMinutes": settings.jobs.minutes, "tags": settings.jobs.tags | {"orchard": request.stage}},
            deferrable=True,
            waiter_delay=settings.runs.job_poll_seconds,
            # Longer than the job's own limit: then EMR ends it, and says so.
            waiter_max_attempts=math.ceil(minutes * 60 / settings.runs.job_poll_seconds),
            enable_application_ui_links=True,
        )

    def prepare(self, backbone: Backbone) -> None:
        """See that the backbone and the package were deployed, and are whole; ConfigurationError when not."""
        check_deployed(self.settings, backbone)
        check_package(str(self.settings.jobs.uri), self.settings.aws_conn_id, (ZIP, ENTRY))

    def _spark_parameters(self) -> str:
        conf = emr_conf(self.settings)
        if self.settings.jobs.environment:
            places = ("spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON", "spark.emr-serverless.driverEnv.PYSPARK_PYTHON")
            conf |= dict.fromkeys((*places, "spark.executorEnv.PYSPARK_PYTHON"), "./environment/bin/python")
        return " ".join(f"--conf {name}={value}" for name, value in conf.items())


class StartEmrServerlessJob(ResumableJob, EmrServerlessStartJobOperator):
    """The stock operator, and what Orchard adds to it.

    - The stock token is drawn again in each try, so a retry would start, and pay for, a second job. Here the token names the work
      and the attempt. A retry reaches a job that is still running; after a recorded failure the next attempt begins.
    - The stock operator reports neither EMR's reason for a failure nor the driver's output. Here the task's log has both.
    """

    vendor = "EMR Serverless job"

    def __init__(self, *, request: JobRequest, warehouse: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.request = request
        self.warehouse = warehouse

    def execute(self, context: Any, event: dict[str, Any] | None = None) -> str | None:
        """Start the job of the current attempt, or reach it where it runs."""
        self.client_request_token = self.begin(context)
        # The name, too, says which attempt it is: a token alone does not find a job.
        self.name = f"orchard-{self.request.stage}-{self.client_request_token}"
        client = self._client
        client.start_job_run = partial(self._start_or_reach, client.start_job_run)
        try:
            return super().execute(context, event)
        except AirflowException as error:
            if self.job_id is None:
                raise
            raise self.failure(context, self._job, error) from error

    def persist_links(self, context: Any) -> None:
        """Record the job that was reached, which the stock operator's `execute` calls for before it waits."""
        self.record_start(context, self._job)
        super().persist_links(context)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> None:
        """End well, or record the bad end and raise JobError with its reason."""
        if event is not None and event["status"] == "success":
            return super().execute_complete(context, event)
        raise self.failure(context, self.recorded_job(context), (event or {}).get("message"))

    def job_state(self, job: dict[str, str]) -> JobState:
        """See ResumableJob."""
        try:
            run = self._client.get_job_run(applicationId=job["application_id"], jobRunId=job["job_id"])["jobRun"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return JobState("GONE", f"EMR Serverless no longer knows it: {error}", is_over=True)
        state = run["state"]
        return JobState(state, run.get("stateDetails", ""), is_over=state in _OVER, is_ending=state == "CANCELLING")

    def cancel(self, job: dict[str, str]) -> None:
        """See ResumableJob."""
        self._client.cancel_job_run(applicationId=job["application_id"], jobRunId=job["job_id"])

    def last_lines(self, job: dict[str, str]) -> list[str]:
        """Return the last lines of the driver's log: Spark's own, then Python's, whose traceback Spark puts on stdout."""
        monitoring = (self.configuration_overrides or {}).get("monitoringConfiguration", {})
        uri = monitoring.get("s3MonitoringConfiguration", {}).get("logUri", "")
        folder = below(uri, "applications", job["application_id"], "jobs", job["job_id"], "SPARK_DRIVER")
        return stored_lines(self.aws_conn_id, folder, ("stderr", "stdout"))

    def _start_or_reach(self, start: Callable[..., dict[str, Any]], **request: Any) -> dict[str, Any]:
        """Answer as StartJobRun does; reach the attempt's job also where the settings have changed since it was started."""
        if self.under_way is not None:
            return _answer(self.under_way["job_id"])
        try:
            return start(**request)
        except ClientError as error:
            # The token goes with another request: that of a try that died before it could record its job.
            found = self._named(request["name"]) if error.response["Error"]["Code"] == "ConflictException" else None
            if found is None:
                raise
            return _answer(found)

    def _named(self, name: str) -> str | None:
        """Return the id of the job run with a name; None when there is none."""
        pages = self._client.get_paginator("list_job_runs").paginate(applicationId=self.application_id)
        return next((run["id"] for page in pages for run in page["jobRuns"] if run.get("name") == name), None)

    @property
    def _job(self) -> dict[str, str]:
        return {"application_id": self.application_id, "job_id": str(self.job_id)}

    @property
    def _client(self) -> Any:
        return self.hook.conn


def _answer(job_id: str) -> dict[str, Any]:
    return {"ResponseMetadata": {"HTTPStatusCode": 200}, "jobRunId": job_id}
