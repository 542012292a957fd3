"""The tables: their columns, partition columns and keys. Column names are API.

Types are spelled once here in a neutral form; `audit.schemas` makes Arrow schemas of them.
"""

from dataclasses import dataclass

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Column:
    """One column: its name, its neutral type and whether null is allowed."""

    name: str
    type: str
    is_nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One published table; `partition_by` columns are strings that stand in the log and the path, not in the files."""

    name: str
    partition_by: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns in the files, in order."""
        return tuple(column.name for column in self.columns)


_IMAGE = (
    Column("image_uri", "string"),
    Column("etag", "string"),
    Column("size_bytes", "int64"),
    Column("uploaded_at", "timestamp"),
)

FEATURES = Table(
    "features",
    ("backbone", "batch_id"),
    (
        *_IMAGE,
        Column("content_sha256", "string"),
        Column("label", "string", is_nullable=True),
        Column("width", "int32"),
        Column("height", "int32"),
        Column("features", "list<float32>"),
        Column("manifest_digest", "string"),
        Column("computed_in", "string"),
        Column("jobs_version", "string"),
    ),
)
QUARANTINE = Table(
    "quarantine",
    ("backbone", "batch_id"),
    (
        *_IMAGE,
        Column("content_sha256", "string", is_nullable=True),
        Column("label", "string", is_nullable=True),
        Column("reason", "string"),
        Column("message", "string"),
        Column("manifest_digest", "string"),
        Column("jobs_version", "string"),
    ),
)
MOMENTS = Table(
    "moments",
    ("backbone", "batch_id"),
    (
        Column("manifest_digest", "string"),
        Column("n", "int64"),
        Column("mean", "list<float64>"),
        Column("second_moment", "list<float64>"),
    ),
)
PCA_FEATURES = Table(
    "pca_features",
    ("model_id", "batch_id"),
    (
        Column("image_uri", "string"),
        Column("content_sha256", "string"),
        Column("label", "string", is_nullable=True),
        Column("pca_features", "list<float32>"),
        Column("manifest_digest", "string"),
        Column("jobs_version", "string"),
    ),
)
MODELS = Table(
    "models",
    (),
    (
        Column("model_id", "string"),
        Column("backbone", "string"),
        Column("k", "int64"),
        Column("n", "int64"),
        Column("mean", "list<float64>"),
        Column("components", "list<float64>"),
        Column("explained_variance", "list<float64>"),
        Column("explained_variance_ratio", "list<float64>"),
        Column("merged_from", "list<struct<batch_id, manifest_digest>>"),
        Column("second_moment", "list<float64>"),
        Column("created_at", "timestamp"),
    ),
)
PROMOTIONS = Table(
    "promotions",
    (),
    (
        Column("backbone", "string"),
        Column("sequence", "int64"),
        Column("model_id", "string"),
        Column("predecessor", "string", is_nullable=True),
        Column("reason", "string"),
        Column("gain", "float64", is_nullable=True),
        Column("distance", "float64", is_nullable=True),
        Column("is_held", "bool"),
        Column("promoted_at", "timestamp"),
    ),
)
PINS = Table(
    "pins",
    (),
    (
        Column("backbone", "string"),
        Column("sequence", "int64"),
        Column("model_id", "string"),
        Column("is_pinned", "bool"),
        Column("pinned_at", "timestamp"),
    ),
)
RUNS = Table(
    "runs",
    ("backbone", "batch_id"),
    (
        Column("manifest_digest", "string"),
        Column("run_id", "string"),
        Column("version", "int64"),
        Column("listed", "int64"),
        Column("featurized", "int64"),
        Column("reused", "int64"),
        Column("quarantined", "int64"),
        Column("missing", "int64"),
        Column("network_runs", "int64"),
        Column("model_id", "string", is_nullable=True),
        Column("target", "string"),
        Column("engine", "string"),
        Column("job_ids", "list<string>"),
        Column("jobs_version", "string"),
        Column("features_version", "int64"),
        Column("quarantine_version", "int64"),
        Column("pca_version", "int64", is_nullable=True),
        Column("audit_verdict", "string"),
        Column("featurize_seconds", "float64"),
        Column("reduce_seconds", "float64", is_nullable=True),
        Column("published_at", "timestamp"),
    ),
)
MODEL_RUNS = Table(
    "model_runs",
    (),
    (
        Column("run_id", "string"),
        Column("backbone", "string"),
        Column("model_id", "string", is_nullable=True),
        Column("action", "string"),
        Column("reason", "string"),
        Column("gain", "float64", is_nullable=True),
        Column("considered", "string"),
        Column("batches_projected", "int64"),
        Column("published_at", "timestamp"),
    ),
)
CAPTURED = Table(
    "captured",
    (),
    (
        Column("model_id", "string"),
        Column("batch_id", "string"),
        Column("manifest_digest", "string"),
        Column("captured", "float64", is_nullable=True),
        Column("total", "float64"),
    ),
)

TABLES = (FEATURES, QUARANTINE, MOMENTS, PCA_FEATURES, MODELS, PROMOTIONS, PINS, RUNS, MODEL_RUNS, CAPTURED)
