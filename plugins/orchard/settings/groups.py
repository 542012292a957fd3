"""The settings of the product itself, by topic. Those of the places where its jobs run are in `targets`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchard_jobs.contract.backbones import BACKBONES, Backbone, backbone_named
from orchard_jobs.contract.heif import heif_extension
from orchard_jobs.contract.locations import S3Location, prefix_of
from orchard_jobs.contract.manifest import OBJECT_LIMIT
from orchard_jobs.contract.views import Views, parse_views

from orchard.settings import parsers
from orchard.settings.variables import SettingsGroup, variable

if TYPE_CHECKING:
    from orchard_jobs.pca.fit import Components


@dataclass(frozen=True)
class LandingZoneSettings(SettingsGroup):
    """Where batches land, how a key names its batch, and when a batch is settled."""

    title = "Landing zone"
    location: S3Location = variable("LANDING", "s3://landing/images", "where batches land: `s3://bucket/prefix`", parsers.landing)
    key_format: str = variable("BATCH_KEY_FORMAT", "%Y-%m-%d", "strftime format of a batch id", parsers.key_format)
    uploads_queue: str | None = variable(
        "UPLOADS_QUEUE", "", "URL of the SQS queue that receives S3's upload events; empty: no events", parsers.queue
    )
    quiet_seconds: float = variable(
        "QUIET_SECONDS", "600", "a batch is settled when its newest object is at least this old", parsers.seconds
    )
    grace_seconds: float = variable(
        "GRACE_SECONDS", "21600", "a batch whose period ended longer ago than this is decided at once", parsers.seconds
    )
    wait_seconds: float = variable(
        "WAIT_SECONDS", "93600", "longest wait for a batch to settle; then the run is skipped", parsers.seconds
    )

    @property
    def bucket(self) -> str:
        """The bucket."""
        return self.location.bucket

    @property
    def prefix(self) -> str:
        """The key prefix, ending in `/` unless it is empty."""
        return prefix_of(self.location.key)

    def batch_prefix(self, batch_id: str) -> str:
        """Return the key prefix of one batch."""
        return prefix_of(self.location.join(batch_id).key)


@dataclass(frozen=True)
class ImageSettings(SettingsGroup):
    """Which images are set aside, and what happens to rows whose images are gone."""

    title = "Images"
    pixel_limit: int = variable("PIXEL_LIMIT", "50000000", "width x height above which an image is quarantined", parsers.pixels)
    object_limit: int = variable(
        "OBJECT_LIMIT", str(OBJECT_LIMIT), "bytes above which an image is quarantined and not fetched", parsers.positive
    )
    max_quarantined_share: float = variable(
        "MAX_QUARANTINED_SHARE",
        "0.2",
        "a batch fails above this share of quarantined images, if more than 10 are and at least one is good",
        parsers.share,
    )
    keeps_missing: bool = variable(
        "MISSING", "keep", "rows of images that are no longer listed: `keep` or `drop`", parsers.keep_or_drop
    )

    @property
    def reads_heic(self) -> bool:
        """Whether the extra `heif` is installed here; the jobs' environment cannot be checked, and is assumed to be the same."""
        return heif_extension() is not None


@dataclass(frozen=True)
class BackboneSettings(SettingsGroup):
    """The variables that name a backbone. The settings hold the backbone that they name."""

    title = "Backbone"
    name: str = variable("BACKBONE", "efficientnet_lite0", f"one of {', '.join(f'`{name}`' for name in BACKBONES)}")
    engine: str = variable(
        "ENGINE", "onnx", "`onnx` (CPU), `cuda` (NVIDIA GPU) or `tensorflow` (reference); `color_histogram`: `numpy`"
    )
    weights_file: str | None = variable(
        "WEIGHTS_FILE", "", "Keras weights file for `resnet50`; empty: Keras fetches them", parsers.optional
    )
    weights_sha256: str | None = variable("WEIGHTS_SHA256", "", "SHA-256 of that file", parsers.optional)
    views: Views = variable(
        "VIEWS",
        "whole",
        "parts of an image whose vectors are averaged: `whole`, `centre:0.875`, or several with commas between",
        parse_views,
    )

    def backbone(self) -> Backbone:
        """Return the backbone; ConfigurationError when the settings do not go together."""
        return backbone_named(self.name, self.engine, self.weights_file, self.weights_sha256, self.views)


@dataclass(frozen=True)
class ModelSettings(SettingsGroup):
    """How large a PCA model is, and when a new one replaces it."""

    title = "Model"
    components: "Components" = variable(
        "COMPONENTS",
        "100",
        "components of the PCA model: a number, or the share of the variance to keep, such as 0.95",
        parsers.components,
    )
    refit_gain: float = variable(
        "REFIT_GAIN", "0.02", "share of the merged variance that a refit must gain over the current model", parsers.share
    )


@dataclass(frozen=True)
class ClassifierSettings(SettingsGroup):
    """What the labels of images mean to a classifier, and when a new one replaces it."""

    title = "Classifier"
    unlabelled: tuple[str, ...] = variable(
        "UNLABELLED", "", "labels that mean no label, separated by commas: `unsorted,unknown`", parsers.labels
    )
    classes: str | None = variable(
        "CLASSES",
        "",
        "CSV file (`/path`, `file:///...` or `s3://...`) with the columns `label` and `class`: what a label means. A label that "
        "is not in it is its own class",
        parsers.text_file,
    )
    class_rows: int = variable("CLASS_ROWS", "5", "classes with fewer labelled images are left out", parsers.positive)
    growth: float = variable(
        "CLASSIFIER_GROWTH",
        "0.05",
        "share by which the labelled images must grow before the classifier is refitted",
        parsers.share,
    )
    promotion_margin: float = variable(
        "PROMOTION_MARGIN",
        "0.01",
        "a new classifier is not promoted if its accuracy is lower than the current one's by more than this share",
        parsers.share,
    )


@dataclass(frozen=True)
class RunSettings(SettingsGroup):
    """When the DAGs run, how often they poll and retry, and who is notified of a failure."""

    title = "Runs"
    schedule: str | None = variable(
        "SCHEDULE", "0 0 * * *", "cron of `image_batches`; `none`: runs are only started by hand", parsers.schedule
    )
    reconcile_schedule: str | None = variable(
        "RECONCILE_SCHEDULE", "0 * * * *", "cron of `reconcile_uploads`; `none`: only by hand", parsers.schedule
    )
    clean_schedule: str | None = variable(
        "CLEAN_SCHEDULE", "0 3 * * 0", "cron of `clean_warehouse`; `none`: runs are only started by hand", parsers.schedule
    )
    max_active: int = variable("MAX_ACTIVE_RUNS", "4", "runs of `image_batches` at once", parsers.positive)
    poll_seconds: float = variable(
        "POLL_SECONDS",
        "60",
        "how often to check a batch or the queue, in seconds; at most 15 for a cluster's job",
        parsers.interval,
    )
    retries: int = variable("RETRIES", "2", "how often a failed task is retried", parsers.count)
    retry_seconds: float = variable("RETRY_SECONDS", "60", "first wait before a retry; doubled each time", parsers.seconds)
    notifier: str = variable("NOTIFIER", "orchard.notify.LogNotifier", "class of the Airflow notifier that a failed task calls")
    notifier_arguments: dict[str, Any] = variable(
        "NOTIFIER_ARGUMENTS", "{}", "its arguments, a JSON object", parsers.json_object, is_secret=True
    )

    @property
    def job_poll_seconds(self) -> int:
        """Seconds between two looks at a cluster's job."""
        return min(15, max(1, round(self.poll_seconds)))


@dataclass(frozen=True)
class RetentionSettings(SettingsGroup):
    """How long unused files and rows are kept."""

    title = "Retention"
    days: float = variable("RETENTION_DAYS", "7", "age in days above which `orchard clean` removes unused files", parsers.days)
    model_days: float = variable(
        "MODEL_RETENTION_DAYS",
        "30",
        "days that `pca_features` keeps rows of a model that is neither current nor pinned",
        parsers.days,
    )
