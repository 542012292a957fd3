"""Everything that differs between machines: environment variables `ORCHARD_*`, read and checked in one place.

Reads no Airflow connection and no Variable, so a DAG file may load it at import.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, get_args

from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.jobs import Source
from orchard_jobs.contract.locations import warehouse_uri
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.pca.fit import Components

from orchard.settings import parsers as kinds


def _variable(name: str, default: str, text: str, kind: Callable[[str], Any] = str) -> Any:
    return field(metadata={"name": f"ORCHARD_{name}", "default": default, "text": text, "kind": kind})


# By target, the settings without which no job of it can be submitted.
_NEEDED: dict[str, tuple[str, ...]] = {
    "local": (),
    "emr_serverless": ("jobs_uri", "emr_application", "emr_role"),
    "databricks": ("jobs_uri",),
    "emr": ("jobs_uri", "emr_cluster"),
}
TARGETS = tuple(_NEEDED)


@dataclass(frozen=True)
class Settings:
    """The settings, one attribute an `ORCHARD_*` variable; `describe()` gives the table that the README shows."""

    warehouse: str = _variable("WAREHOUSE", "", "URI of the warehouse: `file:///...` or `s3://...` (required)", warehouse_uri)
    landing: str = _variable("LANDING", "s3://landing/images", "where batches land: `s3://bucket/prefix`", kinds.landing)
    aws_conn_id: str = _variable("AWS_CONN_ID", "aws_default", "Airflow connection for S3")
    target: str = _variable(
        "TARGET", "local", "where the Spark jobs run: `local`, `emr_serverless`, `databricks` or `emr`", kinds.one_of(*TARGETS)
    )
    spark_conn_id: str = _variable("SPARK_CONN_ID", "spark_default", "Airflow connection with the Spark master (target local)")
    spark_remote: str | None = _variable(
        "SPARK_REMOTE",
        "",
        "`sc://host:port` of a Spark Connect server that runs the jobs; empty: spark-submit (target local)",
        kinds.remote,
    )
    jobs_python: str = _variable("JOBS_PYTHON", "python3", "Python of the jobs' own environment (target local)")
    driver_memory: str = _variable("DRIVER_MEMORY", "2g", "memory of the Spark driver's JVM (target local)", kinds.jvm_memory)
    class_archive: str | None = _variable(
        "CLASS_ARCHIVE",
        "",
        "JVM class archive that makes Spark start faster (target local); see docs/operating.md",
        kinds.optional,
    )
    jobs_uri: str | None = _variable(
        "JOBS_URI", "", "where the jobs' package lies, as `orchard deploy` prints it (all targets but local)", kinds.jobs_uri
    )
    jobs_environment: str | None = _variable(
        "JOBS_ENVIRONMENT", "", "archive of the jobs' Python environment; empty: the cluster's image holds it", kinds.s3_uri
    )
    jobs_logs: str | None = _variable(
        "JOBS_LOGS", "", "`s3://` folder of the jobs' logs; empty: `logs` beside the jobs' package", kinds.s3_uri
    )
    emr_application: str | None = _variable(
        "EMR_APPLICATION", "", "id of the EMR Serverless application (target emr_serverless)", kinds.emr_application
    )
    emr_role: str | None = _variable("EMR_ROLE", "", "ARN of the role that its jobs take (target emr_serverless)", kinds.role)
    emr_cluster: str | dict[str, Any] | None = _variable(
        "EMR_CLUSTER",
        "",
        "id of the EMR cluster, or a JSON object of `RunJobFlow` fields for one a job, `{}` for the defaults (target emr)",
        kinds.emr_cluster,
    )
    databricks_conn_id: str = _variable(
        "DATABRICKS_CONN_ID", "databricks_default", "Airflow connection with the workspace (target databricks)"
    )
    databricks_cluster: str | dict[str, Any] = _variable(
        "DATABRICKS_CLUSTER",
        "serverless",
        "`serverless`, a cluster's id, or a JSON object of `new_cluster` fields such as `policy_id` (target databricks)",
        kinds.cluster,
    )
    databricks_credential: str | None = _variable(
        "DATABRICKS_CREDENTIAL",
        "",
        "Unity Catalog's service credential for an `s3:` warehouse, which serverless compute needs (target databricks)",
        kinds.optional,
    )
    source: Source | None = _variable(
        "SOURCE",
        "",
        "who reads the images: `fetch`, the Python workers; `spark`, where these have no network; empty: as the target needs it",
        kinds.one_of(*get_args(Source)),
    )
    executors: int = _variable("EXECUTORS", "4", "most executors of a job (EMR, and new clusters of Databricks)", kinds.positive)
    executor_cores: int = _variable(
        "EXECUTOR_CORES",
        "4",
        "cores of an executor, and of the driver (EMR); a batch's executor-hours are estimated by them",
        kinds.positive,
    )
    executor_memory: str = _variable("EXECUTOR_MEMORY", "12g", "memory of an executor, and of the driver (EMR)", kinds.memory)
    job_minutes: int = _variable(
        "JOB_MINUTES", "120", "a job that runs longer is cancelled (all targets but local)", kinds.minutes
    )
    job_tags: dict[str, Any] = _variable(
        "JOB_TAGS",
        "{}",
        "tags of each job (EMR Serverless) or of its new cluster (EMR, Databricks), a JSON object of texts",
        kinds.tags,
    )
    max_executor_hours: float = _variable(
        "MAX_EXECUTOR_HOURS", "100", "a batch whose images are estimated to take more is refused by plan_batch", kinds.seconds
    )
    backbone_name: str = _variable("BACKBONE", "efficientnet_lite0", "`efficientnet_lite0` or `resnet50`")
    engine: str = _variable("ENGINE", "onnx", "`onnx` (CPU), `cuda` (NVIDIA GPU) or `tensorflow` (reference)")
    weights_file: str | None = _variable(
        "WEIGHTS_FILE", "", "Keras weights file for `resnet50`; empty: Keras fetches them", kinds.optional
    )
    weights_sha256: str | None = _variable("WEIGHTS_SHA256", "", "SHA-256 of that file", kinds.optional)
    pixel_limit: int = _variable("PIXEL_LIMIT", "50000000", "width x height above which an image is quarantined", kinds.positive)
    max_quarantined_share: float = _variable(
        "MAX_QUARANTINED_SHARE",
        "0.2",
        "a batch fails above this share of quarantined images (where more than 10 are, and at least one is good)",
        kinds.share,
    )
    missing: str = _variable(
        "MISSING", "keep", "rows of images that are no longer listed: `keep` or `drop`", kinds.one_of("keep", "drop")
    )
    components: Components = _variable(
        "COMPONENTS",
        "100",
        "components of the PCA model: their number, or (0.95) the share of the variance to keep",
        kinds.components,
    )
    refit_gain: float = _variable("REFIT_GAIN", "0.02", "share of the merged variance that a refit must gain", kinds.share)
    model_retention_days: float = _variable(
        "MODEL_RETENTION_DAYS", "30", "days that rows stay of a model that is no longer current or pinned", kinds.days
    )
    schedule: str = _variable(
        "SCHEDULE", "0 0 * * *", "cron of `image_batches`; `none`: runs are only started by hand", kinds.schedule
    )
    uploads_queue: str | None = _variable(
        "UPLOADS_QUEUE", "", "URL of the SQS queue that gets S3's upload events; empty: no events", kinds.queue
    )
    reconcile_schedule: str = _variable(
        "RECONCILE_SCHEDULE", "0 * * * *", "cron of `reconcile_uploads`; `none`: only by hand", kinds.schedule
    )
    batch_key_format: str = _variable("BATCH_KEY_FORMAT", "%Y-%m-%d", "strftime format of a batch id", kinds.key_format)
    quiet_seconds: float = _variable("QUIET_SECONDS", "600", "a batch is settled when its newest object is older", kinds.seconds)
    grace_seconds: float = _variable("GRACE_SECONDS", "21600", "a batch that ended longer ago is not waited for", kinds.seconds)
    wait_seconds: float = _variable("WAIT_SECONDS", "93600", "longest wait for a batch's first upload", kinds.seconds)
    poll_seconds: float = _variable(
        "POLL_SECONDS",
        "60",
        "time between two looks at a batch, at the queue, and (15 at most) at a cluster's job",
        kinds.interval,
    )
    retention_days: float = _variable(
        "RETENTION_DAYS", "7", "files that nothing needs are removed when they are older; see `orchard clean`", kinds.days
    )
    clean_schedule: str = _variable(
        "CLEAN_SCHEDULE", "0 3 * * 0", "cron of `clean_warehouse`; `none`: runs are only started by hand", kinds.schedule
    )
    max_active_runs: int = _variable("MAX_ACTIVE_RUNS", "4", "runs of `image_batches` at once", kinds.positive)
    retries: int = _variable("RETRIES", "2", "retries of a task that can be retried", kinds.count)
    retry_seconds: float = _variable("RETRY_SECONDS", "60", "first wait before a retry; doubled each time", kinds.seconds)
    notifier: str = _variable("NOTIFIER", "orchard.notify.LogNotifier", "class of the Airflow notifier that a failed task calls")
    notifier_arguments: dict[str, Any] = _variable("NOTIFIER_ARGUMENTS", "{}", "its arguments, a JSON object", kinds.json_object)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings of an environment (the process's by default).

        Raises:
            ConfigurationError: a value is missing or wrong; it names the variable, the value and what is wanted.
        """
        source = os.environ if environment is None else environment
        _refuse_misspelt(source)
        values = {setting.name: _value(setting.metadata, source) for setting in fields(cls)}
        settings = cls(**values)
        _ = settings.backbone
        return settings

    def check_target(self) -> None:
        """Raise ConfigurationError when a setting is empty that the target's jobs need."""
        needed = _NEEDED[self.target]
        if self.target == "databricks" and self.databricks_cluster == "serverless" and self.warehouse.startswith("s3://"):
            needed += ("databricks_credential",)
        for attribute in needed:
            if getattr(self, attribute) is None:
                raise self.wrong(attribute, f"ORCHARD_TARGET={self.target} needs it")
        if (
            self.jobs_uri is not None
            and self.target != "local"
            and (self.target != "databricks") != self.jobs_uri.startswith("s3:")
        ):
            raise self.wrong("jobs_uri", f"ORCHARD_TARGET={self.target} reads none of this form")

    def wrong(self, attribute: str, why: str) -> ConfigurationError:
        """Return the error that a setting's value does not do; it names the variable and the value."""
        (setting,) = (setting for setting in fields(self) if setting.name == attribute)
        value = getattr(self, attribute)
        told = f"{setting.metadata['name']} is empty" if value is None else f"{setting.metadata['name']}={value!r}"
        return ConfigurationError(f"{told}: {why}; it stands for: {setting.metadata['text']}")

    @property
    def backbone(self) -> Backbone:
        """The backbone with its engine and weights; ConfigurationError when they do not go together."""
        return backbone_named(self.backbone_name, self.engine, self.weights_file, self.weights_sha256)

    @property
    def bucket(self) -> str:
        """Bucket of the landing zone."""
        return self.landing.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """Key prefix of the landing zone, ending in `/` unless it is empty."""
        prefix = self.landing.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/" if prefix else ""

    @property
    def logs_uri(self) -> str:
        """Folder of the jobs' logs, without a trailing slash."""
        return (self.jobs_logs or f"{str(self.jobs_uri).rpartition('/')[0]}/logs").rstrip("/")

    @property
    def job_poll_seconds(self) -> int:
        """Seconds between two looks at a job whose vendor tells of it."""
        return min(15, max(1, round(self.poll_seconds)))

    def batch_prefix(self, batch_id: str) -> str:
        """Key prefix of one batch."""
        return f"{self.prefix}{batch_id}/"


def _refuse_misspelt(source: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a variable that is no setting, and a slip away from the name of one: it would do nothing.

    A name that goes on after a setting's is somebody else's, such as ORCHARD_UPLOADS_QUEUE_ARN. The value may be a secret.
    """
    names = tuple(setting.metadata["name"] for setting in fields(Settings))
    given = sorted(name for name, value in source.items() if value and name.startswith("ORCHARD_"))
    for name in (name for name in given if not name.startswith(names)):
        for meant in get_close_matches(name, names, 1, cutoff=0.95):
            raise ConfigurationError(f"{name} is no setting: if {meant} is meant, rename it, else unset it")


def _value(metadata: Mapping[str, Any], source: Mapping[str, str]) -> Any:
    text = source.get(metadata["name"], "") or metadata["default"]
    try:
        return metadata["kind"](text)
    except ValueError as error:
        raise ConfigurationError(f"{metadata['name']}={text!r}: {error}; it stands for: {metadata['text']}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{metadata['name']}={text!r}: {error}") from error


def describe() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) of every setting."""
    return [(setting.metadata["name"], setting.metadata["default"], setting.metadata["text"]) for setting in fields(Settings)]
