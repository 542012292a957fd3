"""What a DAG asks of a launcher, and what every launcher does around a job."""

import re
from dataclasses import dataclass
from typing import Any, Protocol

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import JobArguments, Source, Stage
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.contract.locations import below
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.storage import Warehouse

from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs

log = escaping_logger(__name__)
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class JobRequest:
    """One job of a DAG.

    Attributes:
        stage: the job's stage, also its task's id.
        plan_task: the task whose XCom holds the input: a `PlannedJobs` as a dict.
        trigger_rule: when the task runs.
    """

    stage: Stage
    plan_task: str
    trigger_rule: str = "all_success"


class Launcher(Protocol):
    """One target: how its jobs are submitted."""

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return the stock operator that runs a request's job; its task is skipped when the work is finished."""

    def prepare(self, backbone: Backbone) -> None:
        """See that the target's jobs can load a backbone; ConfigurationError, before anything is submitted, when not."""


def input_digest_template(request: JobRequest) -> str:
    """Return the template that Airflow fills in with the digest of a request's input."""
    return "{{ ti.xcom_pull(task_ids='" + request.plan_task + "')['input_digest'] }}"


def job_argv(request: JobRequest, settings: Settings, source: Source = "fetch", digest: str | None = None) -> list[str]:
    """Return the command line of a request's job.

    Args:
        request: the job.
        settings: they may name another source.
        source: who reads the images on the target.
        digest: how the command line names its input; None: by the template that Airflow fills in.
    """
    digest = digest or input_digest_template(request)
    credential = settings.databricks.credential if settings.jobs.target == "databricks" else None
    asked = settings.jobs
    return JobArguments(
        request.stage, settings.warehouse, digest, asked.source or source, credential, asked.stall_minutes
    ).to_argv()


def emr_conf(settings: Settings) -> dict[str, str]:
    """Return Spark's properties of a job on EMR: its code, its sizes, and its environment where that is an archive."""
    conf = {
        "spark.submit.pyFiles": below(str(settings.jobs.uri), "orchard_jobs.zip"),
        "spark.executor.cores": str(settings.jobs.executor_cores),
        "spark.executor.memory": settings.jobs.executor_memory,
        "spark.driver.cores": str(settings.jobs.executor_cores),
        "spark.driver.memory": settings.jobs.executor_memory,
        "spark.dynamicAllocation.maxExecutors": str(settings.jobs.executors),
    }
    if settings.jobs.environment:
        conf["spark.archives"] = f"{settings.jobs.environment}#environment"
    return conf


def check_deployed(settings: Settings, backbone: Backbone) -> None:
    """Raise ConfigurationError unless the backbone, where the engine needs an exported one, is in the warehouse."""
    warehouse, path = Warehouse.at(settings.warehouse), backbone_path(backbone.export_id)
    if backbone.is_exported and warehouse.size(path) is None:
        raise ConfigurationError(f"{warehouse.uri_of(path)} is not there: `orchard deploy` exports and uploads it")


def _planned(request: JobRequest, context: Any) -> PlannedJobs:
    """Return a request's jobs from XCom; AirflowFailException unless their input is named by a digest."""
    planned = PlannedJobs(**context["ti"].xcom_pull(task_ids=request.plan_task))
    if not _DIGEST.fullmatch(str(planned.input_digest)):
        returned = f"{request.plan_task} returned input_digest={planned.input_digest!r}, which is not 64 hex digits"
        raise AirflowFailException(f"{returned}: nothing is submitted; start a new run")
    return planned


def planned_work(request: JobRequest, context: Any) -> str:
    """Return the digest of the work that a request's job does."""
    return _planned(request, context).work(request.stage)


def skip_without_work(warehouse: str, request: JobRequest, context: Any) -> None:
    """Skip a job's task when its stage has nothing to do, or its finished report is there: no job is submitted."""
    planned = _planned(request, context)
    if request.stage not in planned.stages:
        raise AirflowSkipException(f"{request.stage} has nothing to do: there is no model yet")
    work = planned.work(request.stage)
    if Warehouse.at(warehouse).size(report_path(work)) is not None:
        raise AirflowSkipException(f"{request.stage} work={work} is already finished; reusing its report")
    log.info("submitting stage=%s work=%s", request.stage, work)
