"""Target `emr_serverless`: job runs of an EMR Serverless application."""

import gzip
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrServerlessHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse

from orchard.attempts import Attempts
from orchard.launchers.request import JobRequest, check_deployed, job_argv, planned_work, skip_without_work
from orchard.settings import Settings

log = logging.getLogger(__name__)
_POLL_SECONDS = 15
# A job may wait for capacity before its own time begins to count.
_QUEUE_MINUTES = 60
_LAST_LINES = 30
_FOUND = "emr_serverless_job"


@dataclass(frozen=True)
class EmrServerlessLauncher:
    """Starts job runs through EmrServerlessStartJobOperator; the deployed package is what they run."""

    settings: Settings

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return the operator; it waits in the triggerer, where the wait holds no worker slot."""
        settings = self.settings
        minutes = settings.job_minutes + _QUEUE_MINUTES
        return StartEmrServerlessJob(
            request=request,
            warehouse=settings.warehouse,
            task_id=request.stage,
            trigger_rule=request.trigger_rule,
            pool="spark",
            aws_conn_id=settings.aws_conn_id,
            application_id=str(settings.emr_application),
            execution_role_arn=str(settings.emr_role),
            name=f"orchard-{request.stage}",
            job_driver={
                "sparkSubmit": {
                    "entryPoint": f"{settings.jobs_uri}/run_job.py",
                    "entryPointArguments": job_argv(request, settings),
                    "sparkSubmitParameters": self._spark_parameters(),
                }
            },
            configuration_overrides={
                "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": f"{settings.logs_uri}/"}}
            },
            config={"executionTimeoutMinutes": settings.job_minutes, "tags": settings.job_tags | {"orchard": request.stage}},
            deferrable=True,
            waiter_delay=_POLL_SECONDS,
            # Longer than the job's own limit: then EMR ends it, and says so.
            waiter_max_attempts=math.ceil(minutes * 60 / _POLL_SECONDS),
            enable_application_ui_links=True,
        )

    def prepare(self, backbone: Backbone) -> None:
        """See that the network was deployed; ConfigurationError when not."""
        check_deployed(self.settings, backbone)

    def _spark_parameters(self) -> str:
        settings = self.settings
        values = {
            "spark.submit.pyFiles": f"{settings.jobs_uri}/orchard_jobs.zip",
            "spark.executor.cores": str(settings.executor_cores),
            "spark.executor.memory": settings.executor_memory,
            "spark.driver.cores": str(settings.executor_cores),
            "spark.driver.memory": settings.executor_memory,
            "spark.dynamicAllocation.maxExecutors": str(settings.executors),
        }
        if settings.jobs_environment:
            python = "./environment/bin/python"
            values |= {
                "spark.archives": f"{settings.jobs_environment}#environment",
                "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": python,
                "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": python,
                "spark.executorEnv.PYSPARK_PYTHON": python,
            }
        return " ".join(f"--conf {name}={value}" for name, value in values.items())


class StartEmrServerlessJob(EmrServerlessStartJobOperator):
    """The stock operator, with what it does not do by itself.

    - Its token is drawn anew in each try, so a retry would start, and pay for, a second job beside the first: here the token
      names the work and the attempt. A retry reaches a job that is still running; after a known bad end the next attempt begins.
    - Of a failed job it tells neither EMR's reason nor the driver's words: here both stand in the task's log and in its error.
    """

    def __init__(self, *, request: JobRequest, warehouse: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.request = request
        self.warehouse = warehouse

    def execute(self, context: Any, event: dict[str, Any] | None = None) -> str | None:
        """Start the job of the current attempt, or reach it where it runs."""
        skip_without_work(self.warehouse, self.request, context)
        self.attempt = self._next_attempt(context)
        self.client_request_token = self._attempts(context).token(self.attempt)
        try:
            return super().execute(context, event)
        except AirflowException as error:
            if self.job_id is None:
                raise
            raise self._bad_end(context, self.attempt, self.job_id) from error

    def persist_links(self, context: Any) -> None:
        """Record the job that was reached, which the stock operator's `execute` calls for before it waits."""
        job = {"application_id": self.application_id, "job_id": str(self.job_id)}
        self._attempts(context).note_start(self.attempt, job)
        context["ti"].xcom_push(key=_FOUND, value=job | {"attempt": self.attempt})
        super().persist_links(context)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> None:
        """End well, or record the bad end and raise JobError with its reason."""
        if event is not None and event["status"] == "success":
            return super().execute_complete(context, event)
        found = context["ti"].xcom_pull(task_ids=self.task_id, key=_FOUND)
        self.job_id = found["job_id"]
        raise self._bad_end(context, found["attempt"], found["job_id"])

    def _attempts(self, context: Any) -> Attempts:
        return Attempts(Warehouse.at(self.warehouse), planned_work(self.request, context))

    def _next_attempt(self, context: Any) -> int:
        """Return the attempt to make or to reach, after recording the end of a job that ended unseen."""
        attempts = self._attempts(context)
        attempt = attempts.current
        job = attempts.started(attempt)
        if job is None:
            return attempt
        run = self._ended_or_running(job)
        if run["state"] in EmrServerlessHook.JOB_INTERMEDIATE_STATES:
            log.info("reaching job %s of attempt %s, which is %s", job["job_id"], attempt, run["state"])
            return attempt
        skip_without_work(self.warehouse, self.request, context)  # it may have finished just now
        attempts.note_end(attempt, run["state"], run.get("stateDetails", ""))
        return attempt + 1

    def _ended_or_running(self, job: dict[str, str]) -> dict[str, Any]:
        """Return a job run, waiting while it is being cancelled: beside it a new one would be a second."""
        while True:
            run = self._job_run(job["application_id"], job["job_id"])
            if run["state"] != "CANCELLING":
                return run
            time.sleep(_POLL_SECONDS / 3)

    def _job_run(self, application_id: str, job_id: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._client.get_job_run(applicationId=application_id, jobRunId=job_id)["jobRun"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return {"state": "GONE", "stateDetails": f"EMR Serverless no longer knows it: {error}"}
        return found

    @property
    def _client(self) -> Any:
        return self.hook.conn

    def _bad_end(self, context: Any, attempt: int, job_id: str) -> JobError:
        """Return what to raise for a job that did not end well; a job that still runs is cancelled first."""
        run = self._job_run(self.application_id, job_id)
        if run["state"] in EmrServerlessHook.JOB_INTERMEDIATE_STATES:
            self._client.cancel_job_run(applicationId=self.application_id, jobRunId=job_id)
        # A cancelled job runs on for a moment: an end that is told too early would start a second one beside it.
        while run["state"] in (*EmrServerlessHook.JOB_INTERMEDIATE_STATES, "CANCELLING"):
            time.sleep(_POLL_SECONDS / 15)
            run = self._job_run(self.application_id, job_id)
        reason = run.get("stateDetails", "")
        self._attempts(context).note_end(attempt, run["state"], reason)
        lines = self._driver_log(job_id)
        for line in lines:
            log.error("driver: %s", line)
        last = next((line for line in reversed(lines) if line.strip()), "its driver's log is not there")
        return JobError(
            f"EMR Serverless job {job_id} of {self.application_id} is {run['state']}: {reason or 'no details'}: {last}"
        )

    def _driver_log(self, job_id: str) -> list[str]:
        """Return the last lines of the driver's log: Spark's own, then Python's, whose traceback Spark puts on stdout."""
        monitoring = (self.configuration_overrides or {}).get("monitoringConfiguration", {})
        uri = monitoring.get("s3MonitoringConfiguration", {}).get("logUri", "")
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        lines: list[str] = []
        for stream in ("stderr", "stdout"):
            key = f"{prefix}applications/{self.application_id}/jobs/{job_id}/SPARK_DRIVER/{stream}.gz"
            try:
                packed = S3Hook(self.aws_conn_id).get_key(key, bucket).get()["Body"].read()
                lines += gzip.decompress(packed).decode(errors="replace").splitlines()[-_LAST_LINES:]
            except (ClientError, OSError, EOFError) as error:
                log.warning("the driver's log s3://%s/%s cannot be read: %s", bucket, key, error)
        return lines
