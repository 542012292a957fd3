"""The settings of the jobs: those of every target, and a group for each target with the rules of that target.

docs/architecture.md ("Add a target") has the steps to add one.
"""

import re
from dataclasses import dataclass
from typing import Any, get_args

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import STALL_MINUTES, Source
from orchard_jobs.contract.locations import beside, is_s3, without_slash

from orchard.settings import parsers
from orchard.settings.groups import BackboneSettings
from orchard.settings.variables import SettingsGroup, variable

TARGETS = ("local", "emr_serverless", "databricks", "emr")
# GB of memory that a worker of EMR Serverless may have, overhead included, by its cores.
_LARGEST_MEMORY = {1: 8, 2: 16, 4: 30, 8: 60, 16: 120}
# The fields of an EMR cluster's `Instances` that name its nodes.
_EMR_NODES = {"InstanceFleets", "InstanceGroups", "SlaveInstanceType"}
# What botocore quotes of a field in its report.
_VALUE = re.compile(r" value: .*?,(?= type: | valid )", re.DOTALL)


@dataclass(frozen=True)
class JobSettings(SettingsGroup):
    """Where jobs run, what they run, and how large they may get."""

    title = "Jobs"
    target: str = variable(
        "TARGET", "local", "where the Spark jobs run: `local`, `emr_serverless`, `databricks` or `emr`", parsers.one_of(*TARGETS)
    )
    source: Source | None = variable(
        "SOURCE",
        "",
        "who reads the images: `fetch` (the Python workers) or `spark` (where they have no network); empty: as the target needs",
        parsers.one_of(*get_args(Source)),
    )
    uri: str | None = variable(
        "JOBS_URI", "", "where the jobs' package lies, as `orchard deploy` prints it (all targets but local)", parsers.jobs_uri
    )
    environment: str | None = variable(
        "JOBS_ENVIRONMENT", "", "archive of the jobs' Python environment; empty: the cluster's image holds it", parsers.s3_uri
    )
    logs: str | None = variable(
        "JOBS_LOGS", "", "`s3://` folder of the jobs' logs; empty: `logs` beside the jobs' package", parsers.s3_uri
    )
    executors: int = variable(
        "EXECUTORS", "4", "largest number of executors of a job (EMR, and new clusters of Databricks)", parsers.positive
    )
    executor_cores: int = variable(
        "EXECUTOR_CORES",
        "4",
        "cores of an executor and of the driver (EMR); the estimate of executor-hours uses it",
        parsers.positive,
    )
    executor_memory: str = variable("EXECUTOR_MEMORY", "12g", "memory of an executor, and of the driver (EMR)", parsers.memory)
    minutes: int = variable("JOB_MINUTES", "120", "a job that runs longer is cancelled (all targets but local)", parsers.minutes)
    stall_minutes: float = variable(
        "STALL_MINUTES",
        f"{STALL_MINUTES:g}",
        "minutes without progress after which a job ends itself; the time in a queue does not count",
        parsers.stall_minutes,
    )
    tags: dict[str, Any] = variable(
        "JOB_TAGS",
        "{}",
        "tags of each job (EMR Serverless) or of its new cluster (EMR, Databricks), a JSON object of texts",
        parsers.tags,
        is_secret=True,
    )
    max_executor_hours: float = variable(
        "MAX_EXECUTOR_HOURS",
        "100",
        "`plan_batch` refuses a batch whose estimate is above this (all targets but local)",
        parsers.hours,
    )

    @property
    def logs_uri(self) -> str:
        """Folder of the jobs' logs, without a trailing slash."""
        return without_slash(self.logs or beside(str(self.uri), "logs"))

    def need(self, group: SettingsGroup, attribute: str) -> None:
        """Raise ConfigurationError when a setting is empty that the target needs."""
        if getattr(group, attribute) is None:
            meaning = group.variables()[attribute].meaning
            raise group.wrong(attribute, f"ORCHARD_TARGET={self.target} needs it: {meaning}")

    def need_package(self, *, is_in_s3: bool) -> None:
        """Raise ConfigurationError when the jobs' package is nowhere, or where the target cannot read it."""
        self.need(self, "uri")
        if is_s3(str(self.uri)) != is_in_s3:
            wanted = "an s3:// URI" if is_in_s3 else "a folder below /Volumes or /Workspace"
            raise self.wrong("uri", f"target {self.target} needs {wanted}")


class TargetSettings(SettingsGroup):
    """The settings of one target, and its rules."""

    def check(self, jobs: JobSettings, warehouse: str, backbone: Backbone) -> None:
        """Raise ConfigurationError when no job can be submitted with the settings.

        Args:
            jobs: the settings that all targets share.
            warehouse: its URI.
            backbone: what the jobs load.
        """


@dataclass(frozen=True)
class LocalSettings(TargetSettings):
    """Target `local`: spark-submit on the Airflow worker, or a Spark Connect server."""

    title = "Target local"
    spark_conn_id: str = variable("SPARK_CONN_ID", "spark_default", "Airflow connection with the Spark master (target local)")
    spark_remote: str | None = variable(
        "SPARK_REMOTE",
        "",
        "`sc://host:port` of a Spark Connect server that runs the jobs; empty: spark-submit (target local)",
        parsers.remote,
        is_secret=True,
    )
    jobs_python: str = variable("JOBS_PYTHON", "python3", "Python of the jobs' own environment (target local)")
    driver_memory: str = variable("DRIVER_MEMORY", "2g", "memory of the Spark driver's JVM (target local)", parsers.jvm_memory)
    class_archive: str | None = variable(
        "CLASS_ARCHIVE",
        "",
        "archive of JVM classes that shortens the start of Spark (target local); see docs/targets/local.md",
        parsers.optional,
    )


@dataclass(frozen=True)
class EmrServerlessSettings(TargetSettings):
    """Target `emr_serverless`: job runs of an EMR Serverless application."""

    title = "Target emr_serverless"
    application: str | None = variable(
        "EMR_APPLICATION", "", "id of the EMR Serverless application (target emr_serverless)", parsers.emr_application
    )
    role: str | None = variable("EMR_ROLE", "", "ARN of the role that its jobs take (target emr_serverless)", parsers.role)

    def check(self, jobs: JobSettings, warehouse: str, backbone: Backbone) -> None:
        """See TargetSettings: a package in S3, an application, a role, no GPU, and a size of worker that EMR Serverless has."""
        jobs.need_package(is_in_s3=True)
        jobs.need(self, "application")
        jobs.need(self, "role")
        _refuse_gpu(backbone, "EMR Serverless has no GPU")
        largest = _LARGEST_MEMORY.get(jobs.executor_cores)
        if largest is None:
            raise jobs.wrong("executor_cores", f"a worker of EMR Serverless has {', '.join(map(str, _LARGEST_MEMORY))} cores")
        if int(jobs.executor_memory.removesuffix("g")) * 1.1 > largest:
            worker = f"a worker of {jobs.executor_cores} cores"
            raise jobs.wrong("executor_memory", f"with its overhead of a tenth above the {largest} GB of {worker}")


@dataclass(frozen=True)
class EmrSettings(TargetSettings):
    """Target `emr`: steps on an existing EMR cluster, or on a new one for each job."""

    title = "Target emr"
    cluster: str | dict[str, Any] | None = variable(
        "EMR_CLUSTER",
        "",
        "id of an existing EMR cluster, or `RunJobFlow` fields in JSON for one per job, `{}` for the defaults (target emr)",
        parsers.emr_cluster,
        is_secret=True,
    )

    def check(self, jobs: JobSettings, warehouse: str, backbone: Backbone) -> None:
        """See TargetSettings: a package in S3, and a cluster, or fields that make one which holds what the jobs import."""
        jobs.need_package(is_in_s3=True)
        jobs.need(self, "cluster")
        if not isinstance(self.cluster, dict):
            return
        if why := _wrong_emr_fields(self.cluster):
            raise self.wrong("cluster", why)
        if not (jobs.environment or self.cluster.keys() & {"CustomAmiId", "BootstrapActions"}):
            where = "CustomAmiId or BootstrapActions in ORCHARD_EMR_CLUSTER"
            raise jobs.wrong("environment", f"EMR's own image lacks what the jobs import: set it, or {where}")
        if backbone.engine == "cuda" and not self.cluster.get("Instances", {}).keys() & _EMR_NODES:
            why = "ORCHARD_ENGINE=cuda needs nodes with GPUs in Instances, and a CustomAmiId with their driver"
            raise self.wrong("cluster", why)


@dataclass(frozen=True)
class DatabricksSettings(TargetSettings):
    """Target `databricks`: runs on serverless compute, on a new cluster, or on an existing one."""

    title = "Target databricks"
    conn_id: str = variable(
        "DATABRICKS_CONN_ID", "databricks_default", "Airflow connection with the workspace (target databricks)"
    )
    cluster: str | dict[str, Any] = variable(
        "DATABRICKS_CLUSTER",
        "serverless",
        "`serverless`, a cluster's id, or a JSON object of `new_cluster` fields such as `policy_id` (target databricks)",
        parsers.cluster,
        is_secret=True,
    )
    credential: str | None = variable(
        "DATABRICKS_CREDENTIAL",
        "",
        "Unity Catalog's service credential for an `s3:` warehouse, which serverless compute needs (target databricks)",
        parsers.optional,
    )

    @property
    def is_serverless(self) -> bool:
        """Whether jobs run on serverless compute."""
        return self.cluster == "serverless"

    def check(self, jobs: JobSettings, warehouse: str, backbone: Backbone) -> None:
        """See TargetSettings: a package in the workspace, fields that make a cluster; on serverless a credential and no GPU."""
        jobs.need_package(is_in_s3=False)
        if self.is_serverless:
            if is_s3(warehouse):
                jobs.need(self, "credential")
            _refuse_gpu(backbone, "serverless compute has no GPU: set ORCHARD_DATABRICKS_CLUSTER")
        if isinstance(self.cluster, dict) and (why := _wrong_databricks_fields(self.cluster)):
            raise self.wrong("cluster", why)


def _refuse_gpu(backbone: Backbone, why: str) -> None:
    if backbone.engine == "cuda":
        raise BackboneSettings.variables()["engine"].wrong(backbone.engine, why)


def _wrong_emr_fields(given: dict[str, Any]) -> str | None:
    """Return why no EMR cluster can be made of some fields; None when one can."""
    if reserved := given.keys() & {"Name", "Steps"}:
        return f"{', '.join(sorted(reserved))}: the launcher gives it"
    from botocore.session import get_session  # other targets do not need it
    from botocore.validate import ParamValidator

    fields: Any = get_session().get_service_model("emr").operation_model("RunJobFlow").input_shape
    report = ParamValidator().validate({"Name": "", "Instances": {}, **_without_texts(given)}, fields)
    return _VALUE.sub("", report.generate_report()) if report.has_errors() else None


def _without_texts(given: Any) -> Any:
    """Return fields of the same types whose texts, which may be secrets, are all alike."""
    if isinstance(given, dict):
        return {name: _without_texts(value) for name, value in given.items()}
    if isinstance(given, list):
        return [_without_texts(value) for value in given]
    return "*" * len(given) if isinstance(given, str) else given


def _wrong_databricks_fields(given: dict[str, Any]) -> str | None:
    """Return why no Databricks cluster can be made of some fields; None when one can."""
    if not given:
        return None
    from databricks.sdk.service.compute import ClusterSpec  # takes a second

    try:
        known = ClusterSpec.from_dict(given).as_dict()
    except (TypeError, ValueError, AttributeError, KeyError):
        return f"{', '.join(sorted(given))}: not the fields of a cluster"
    if known != given:
        odd = sorted(name for name in given if known.get(name) != given[name])
        return f"{', '.join(odd)}: not a cluster field, or a wrong type or value for one"
    types = {"spark_version": str, "node_type_id": str, "num_workers": int, "custom_tags": dict}
    for name, kind in types.items():
        if not isinstance(given.get(name, kind()), kind):
            return f"{name} must be {kind.__name__}, not {type(given[name]).__name__}"
    return "either num_workers or autoscale" if {"num_workers", "autoscale"} <= given.keys() else None
