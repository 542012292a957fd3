"""Everything that differs between machines: environment variables `ORCHARD_*`, read and checked in one place.

Reads no Airflow connection and no Variable, so a DAG file may load it at import.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, get_args

from croniter import croniter
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.jobs import Source
from orchard_jobs.contract.layout import checked_batch_id, warehouse_uri
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.pca.fit import Components


def _variable(name: str, default: str, text: str, kind: Callable[[str], Any] = str) -> Any:
    return field(metadata={"name": f"ORCHARD_{name}", "default": default, "text": text, "kind": kind})


# By target, the settings without which no job of it can be submitted.
_NEEDED: dict[str, tuple[str, ...]] = {
    "local": (),
    "emr_serverless": ("jobs_uri", "emr_application", "emr_role"),
    "databricks": ("jobs_uri",),
}
TARGETS = tuple(_NEEDED)
_FEWEST_DAYS, _MOST_DAYS = 0.05, 365


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("not between 0 and 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("not above 0")
    return value


def _components(text: str) -> Components:
    wanted = "neither a whole number above 0 (components) nor a number above 0 and below 1 (share of the variance)"
    try:
        value: Components = int(text)
    except ValueError:
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(wanted) from error
    is_right = value >= 1 if isinstance(value, int) else 0 < value < 1
    if not is_right:
        raise ValueError(wanted)
    return value


def _days(text: str) -> float:
    value = float(text)
    if not _FEWEST_DAYS <= value <= _MOST_DAYS:
        raise ValueError(f"not between {_FEWEST_DAYS} (a job may be reading what is younger) and {_MOST_DAYS}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError("not between 0 and 1e9")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("below 0")
    return value


def _optional(text: str) -> str | None:
    return text or None


def _landing(text: str) -> str:
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise ValueError("not of the form s3://bucket/prefix")
    return f"s3://{bucket}/{prefix}".rstrip("/")


def _schedule(text: str) -> str:
    if text != "none" and not croniter.is_valid(text):
        raise ValueError("no cron expression, and not `none`")
    return text


def _queue(text: str) -> str | None:
    if text and not text.startswith(("https://", "http://")):
        raise ValueError("no URL of an SQS queue")
    return text or None


def _target(text: str) -> str:
    if text not in TARGETS:
        raise ValueError(f"none of {', '.join(TARGETS)}")
    return text


def _cluster(text: str) -> str | dict[str, Any]:
    if text.startswith("{"):
        return _object(text)
    if not re.fullmatch(r"[A-Za-z0-9-]+", text):
        raise ValueError("neither `serverless`, nor a cluster's id, nor a JSON object")
    return text


def _source(text: str) -> str | None:
    if text and text not in get_args(Source):
        raise ValueError(f"none of {', '.join(get_args(Source))}")
    return text or None


def _memory(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*g", text):
        raise ValueError("not a number of gigabytes such as `12g`")
    return text


def _minutes(text: str) -> int:
    value = int(text)
    if not 5 <= value <= 7 * 24 * 60:
        raise ValueError("not between 5 and 10080")
    return value


def _key_format(text: str) -> str:
    days = [datetime(*day, tzinfo=UTC).strftime(text) for day in ((2000, 1, 2), (2000, 1, 3), (2000, 2, 2), (2001, 1, 2))]
    if len(set(days)) < len(days):
        raise ValueError("two days have one key")
    try:
        checked_batch_id(days[0])
    except ConfigurationError as error:
        raise ValueError(f"a key of this format cannot stand in a path: {error}") from error
    return text


def _missing(text: str) -> str:
    if text not in ("keep", "drop"):
        raise ValueError("neither `keep` nor `drop`")
    return text


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _tags(text: str) -> dict[str, Any]:
    value = _object(text)
    if not all(isinstance(item, str) for item in value.values()):
        raise ValueError("not a JSON object of texts")
    return value


@dataclass(frozen=True)
class Settings:
    """The settings, one attribute an `ORCHARD_*` variable; `describe()` gives the table that the README shows."""

    warehouse: str = _variable("WAREHOUSE", "", "URI of the warehouse: `file:///...` or `s3://...` (required)", warehouse_uri)
    landing: str = _variable("LANDING", "s3://landing/images", "where batches land: `s3://bucket/prefix`", _landing)
    aws_conn_id: str = _variable("AWS_CONN_ID", "aws_default", "Airflow connection for S3")
    target: str = _variable("TARGET", "local", "where the Spark jobs run: `local`, `emr_serverless` or `databricks`", _target)
    spark_conn_id: str = _variable("SPARK_CONN_ID", "spark_default", "Airflow connection with the Spark master (target local)")
    jobs_python: str = _variable("JOBS_PYTHON", "python3", "Python of the jobs' own environment (target local)")
    driver_memory: str = _variable("DRIVER_MEMORY", "2g", "memory of the Spark driver's JVM (target local)")
    class_archive: str | None = _variable(
        "CLASS_ARCHIVE", "", "JVM class archive that makes Spark start faster (target local); see docs/operating.md", _optional
    )
    jobs_uri: str | None = _variable(
        "JOBS_URI", "", "where the jobs' package lies, as `orchard deploy` prints it (all targets but local)", _optional
    )
    jobs_environment: str | None = _variable(
        "JOBS_ENVIRONMENT", "", "archive of the jobs' Python environment; empty: the cluster's image holds it", _optional
    )
    jobs_logs: str | None = _variable(
        "JOBS_LOGS", "", "`s3://` folder of the jobs' logs; empty: `logs` beside the jobs' package", _optional
    )
    emr_application: str | None = _variable(
        "EMR_APPLICATION", "", "id of the EMR Serverless application (target emr_serverless)", _optional
    )
    emr_role: str | None = _variable("EMR_ROLE", "", "ARN of the role that its jobs take (target emr_serverless)", _optional)
    databricks_conn_id: str = _variable(
        "DATABRICKS_CONN_ID", "databricks_default", "Airflow connection with the workspace (target databricks)"
    )
    databricks_cluster: str | dict[str, Any] = _variable(
        "DATABRICKS_CLUSTER",
        "serverless",
        "`serverless`, a cluster's id, or a JSON object of `new_cluster` fields such as `policy_id` (target databricks)",
        _cluster,
    )
    source: Source | None = _variable(
        "SOURCE",
        "",
        "who reads the images: `fetch`, the Python workers; `spark`, where these have no network; empty: as the target needs it",
        _source,
    )
    executors: int = _variable("EXECUTORS", "4", "most executors of a job (all targets but local)", _positive)
    executor_cores: int = _variable("EXECUTOR_CORES", "4", "cores of an executor, and of the driver", _positive)
    executor_memory: str = _variable("EXECUTOR_MEMORY", "12g", "memory of an executor, and of the driver", _memory)
    job_minutes: int = _variable("JOB_MINUTES", "120", "a job that runs longer is cancelled (all targets but local)", _minutes)
    job_tags: dict[str, Any] = _variable("JOB_TAGS", "{}", "tags of each job, a JSON object of texts", _tags)
    max_executor_hours: float = _variable(
        "MAX_EXECUTOR_HOURS", "100", "a batch whose images are estimated to take more is refused by plan_batch", _seconds
    )
    backbone_name: str = _variable("BACKBONE", "efficientnet_lite0", "`efficientnet_lite0` or `resnet50`")
    engine: str = _variable("ENGINE", "onnx", "`onnx` (CPU) or `tensorflow` (reference)")
    weights_file: str | None = _variable(
        "WEIGHTS_FILE", "", "Keras weights file for `resnet50`; empty: Keras fetches them", _optional
    )
    weights_sha256: str | None = _variable("WEIGHTS_SHA256", "", "SHA-256 of that file", _optional)
    pixel_limit: int = _variable("PIXEL_LIMIT", "50000000", "width x height above which an image is quarantined", _positive)
    max_quarantined_share: float = _variable(
        "MAX_QUARANTINED_SHARE",
        "0.2",
        "a batch fails above this share of quarantined images (where more than 10 are)",
        _share,
    )
    missing: str = _variable("MISSING", "keep", "rows of images that are no longer listed: `keep` or `drop`", _missing)
    components: Components = _variable(
        "COMPONENTS", "100", "components of the PCA model: their number, or (0.95) the share of the variance to keep", _components
    )
    refit_gain: float = _variable("REFIT_GAIN", "0.02", "share of the merged variance that a refit must gain", _share)
    model_retention_days: float = _variable(
        "MODEL_RETENTION_DAYS", "30", "days that rows stay of a model that is no longer current or pinned", _days
    )
    schedule: str = _variable(
        "SCHEDULE", "0 0 * * *", "cron of `image_batches`; `none`: runs are only started by hand", _schedule
    )
    uploads_queue: str | None = _variable(
        "UPLOADS_QUEUE", "", "URL of the SQS queue that gets S3's upload events; empty: no events", _queue
    )
    reconcile_schedule: str = _variable(
        "RECONCILE_SCHEDULE", "0 * * * *", "cron of `reconcile_uploads`; `none`: only by hand", _schedule
    )
    batch_key_format: str = _variable("BATCH_KEY_FORMAT", "%Y-%m-%d", "strftime format of a batch id", _key_format)
    quiet_seconds: float = _variable("QUIET_SECONDS", "600", "a batch is settled when its newest object is older", _seconds)
    grace_seconds: float = _variable("GRACE_SECONDS", "21600", "a batch that ended longer ago is not waited for", _seconds)
    wait_seconds: float = _variable("WAIT_SECONDS", "93600", "longest wait for a batch's first upload", _seconds)
    poll_seconds: float = _variable("POLL_SECONDS", "60", "time between two looks at a batch, and at the queue", _seconds)
    retention_days: float = _variable(
        "RETENTION_DAYS", "7", "files that nothing needs are removed when they are older; see `orchard clean`", _days
    )
    clean_schedule: str = _variable(
        "CLEAN_SCHEDULE", "0 3 * * 0", "cron of `clean_warehouse`; `none`: runs are only started by hand", _schedule
    )
    max_active_runs: int = _variable("MAX_ACTIVE_RUNS", "4", "runs of `image_batches` at once", _positive)
    retries: int = _variable("RETRIES", "2", "retries of a task that can be retried", _count)
    retry_seconds: float = _variable("RETRY_SECONDS", "60", "first wait before a retry; doubled each time", _seconds)
    notifier: str = _variable("NOTIFIER", "orchard.notify.LogNotifier", "class of the Airflow notifier that a failed task calls")
    notifier_arguments: dict[str, Any] = _variable("NOTIFIER_ARGUMENTS", "{}", "its arguments, a JSON object", _object)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings of an environment (the process's by default).

        Raises:
            ConfigurationError: a value is missing or wrong; it names the variable, the value and what is wanted.
        """
        source = os.environ if environment is None else environment
        values = {setting.name: _value(setting.metadata, source) for setting in fields(cls)}
        settings = cls(**values)
        _ = settings.backbone
        return settings

    def check_target(self) -> None:
        """Raise ConfigurationError when a setting is empty that the target's jobs need."""
        for attribute in _NEEDED[self.target]:
            if getattr(self, attribute) is None:
                (setting,) = (setting for setting in fields(self) if setting.name == attribute)
                raise ConfigurationError(
                    f"{setting.metadata['name']} is empty, and ORCHARD_TARGET={self.target} needs it: {setting.metadata['text']}"
                )

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

    def batch_prefix(self, batch_id: str) -> str:
        """Key prefix of one batch."""
        return f"{self.prefix}{batch_id}/"


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
