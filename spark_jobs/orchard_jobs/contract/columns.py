"""The tables: their columns, partition columns and keys. Column names are API.

Types are spelled once here in a neutral form; `schemas` makes Arrow schemas of them.
"""

from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, CLASSIFIERS, EVALUATIONS, PREDICTIONS
from orchard_jobs.contract.table import CONTENT, JOBS, MANIFEST, URI
from orchard_jobs.contract.table import Column as Column
from orchard_jobs.contract.table import Table as Table

SCHEMA_VERSION = 2

PARTITION_MEANINGS = {
    "backbone": "full name of the backbone",
    "batch_id": "the partition key; always a string, never a date",
    "model_id": "the model",
}
"""What the partition columns mean. They stand in the log and the path, so no `Column` describes them."""

_LABEL = Column(
    "label",
    "string",
    "name of the folder that holds the image. Null: the image lies directly under the batch",
    is_nullable=True,
)
_IMAGE = (
    URI,
    Column("etag", "string", "the object's ETag as listed, without quotes"),
    Column("size_bytes", "int64", "the object's size as listed"),
    Column("uploaded_at", "timestamp", "when this key and ETag were first seen; never compared"),
)

FEATURES = Table(
    "features",
    ("backbone", "batch_id"),
    (
        *_IMAGE,
        CONTENT,
        _LABEL,
        Column("width", "int32", "pixels after EXIF rotation, before resizing"),
        Column("height", "int32", "pixels after EXIF rotation, before resizing"),
        Column("features", "list<float32>", "the backbone's output: 1280 values, 2048 (`resnet50`) or 256 (`color_histogram`)"),
        MANIFEST,
        Column("computed_in", "string", "`manifest_digest` of the batch version whose job computed the vector"),
        JOBS,
    ),
    "One row for each good image of a batch.",
)
QUARANTINE = Table(
    "quarantine",
    ("backbone", "batch_id"),
    (
        *_IMAGE,
        Column("content_sha256", "string", "SHA-256 of the file's bytes. Null: the image was never read", is_nullable=True),
        _LABEL,
        Column("reason", "string", "one of the [quarantine reasons](quarantine.md)"),
        Column("message", "string", "the words of the decoder or of the store"),
        MANIFEST,
        JOBS,
    ),
    "One row for each image that was set aside.",
)
MOMENTS = Table(
    "moments",
    ("backbone", "batch_id"),
    (
        Column("manifest_digest", "string", "names the batch version that the moments belong to"),
        Column("n", "int64", "number of good images"),
        Column("mean", "list<float64>", "mean of the features: d values"),
        Column("second_moment", "list<float64>", "centred second moment of the features, upper triangle, row by row"),
    ),
    "The statistics of a batch version that a fit merges. A cache: small batches have no row.",
)
PCA_FEATURES = Table(
    "pca_features",
    ("model_id", "batch_id"),
    (
        URI,
        CONTENT,
        _LABEL,
        Column("pca_features", "list<float32>", "the centred projection: as many values as the model has components"),
        MANIFEST,
        JOBS,
    ),
    "One row for each good image and model. Every batch has rows of the current model and of each pinned model. "
    "Rows of other models go after `ORCHARD_MODEL_RETENTION_DAYS`.",
)
MODELS = Table(
    "models",
    (),
    (
        Column("model_id", "string", "digest of the backbone, `ORCHARD_COMPONENTS` and the batch versions"),
        Column("backbone", "string", "full name of the backbone"),
        Column("k", "int64", "number of components: as `ORCHARD_COMPONENTS` asks, at most n - 1 and the numerical rank"),
        Column("n", "int64", "number of rows that the model was fitted on"),
        Column("mean", "list<float64>", "mean of the features: d values"),
        Column(
            "components",
            "list<float64>",
            "k x d values, row by row; orthonormal; the largest loading of each component is positive",
        ),
        Column("explained_variance", "list<float64>", "k values, falling"),
        Column("explained_variance_ratio", "list<float64>", "k values, falling; each is a share of the total variance"),
        Column("merged_from", "list<struct<batch_id, manifest_digest>>", "the batch versions that the model was fitted on"),
        Column("second_moment", "list<float64>", "the merged centred second moment, upper triangle, row by row"),
        Column("created_at", "timestamp", "when the model was fitted"),
    ),
    "One row for each fitted PCA model. A row never changes.",
)
_KIND = Column("kind", "string", "`pca` or `classifier`. Null: `pca`, in rows of an earlier release", is_nullable=True)
PROMOTIONS = Table(
    "promotions",
    (),
    (
        Column("backbone", "string", "full name of the backbone"),
        Column("sequence", "int64", "1, 2, ...; the largest of a backbone names its current model"),
        Column("model_id", "string", "the model that became current"),
        Column("predecessor", "string", "the model before. Null: this is the first", is_nullable=True),
        Column("reason", "string", "why the model was fitted, or that a person chose it"),
        Column(
            "gain",
            "float64",
            "share of the merged variance that the refit gained. Null: the first model, or chosen by a person",
            is_nullable=True,
        ),
        Column(
            "distance",
            "float64",
            "sine of the largest angle between its subspace and its predecessor's (of different k: from the smaller to the "
            "larger). Null: the first model",
            is_nullable=True,
        ),
        Column("is_held", "bool", "whether refits wait until the model is released"),
        Column("promoted_at", "timestamp", "when the model became current"),
        _KIND,
    ),
    "Which model is current: the row with the largest `sequence` of a backbone.",
)
PINS = Table(
    "pins",
    (),
    (
        Column("backbone", "string", "full name of the backbone"),
        Column("sequence", "int64", "1, 2, ...; the last row of a model counts"),
        Column("model_id", "string", "the model that was pinned or unpinned"),
        Column("is_pinned", "bool", "whether every batch keeps rows of the model"),
        Column("pinned_at", "timestamp", "when the model was pinned or unpinned"),
        _KIND,
    ),
    "Which models are pinned: the last row of a model counts.",
)
RUNS = Table(
    "runs",
    ("backbone", "batch_id"),
    (
        Column("manifest_digest", "string", "names the batch version; its rows in the other tables carry the same digest"),
        Column("run_id", "string", "Airflow's id of the run that published"),
        Column("version", "int64", "number of the batch version: 1, 2, ...; numbers can be skipped"),
        Column("listed", "int64", "objects under the batch; `listed = featurized + reused + quarantined`"),
        Column("featurized", "int64", "vectors that this run computed, the first of each content"),
        Column("reused", "int64", "all other good rows: kept ones, and duplicates of known content"),
        Column("quarantined", "int64", "images set aside, kept ones included"),
        Column("missing", "int64", "images that were published before, are no longer listed, and keep their rows"),
        Column("network_runs", "int64", "squares that went through the backbone: one for each view of an image"),
        Column("model_id", "string", "the model that `reduce` used. Null: there was no model yet", is_nullable=True),
        Column("target", "string", "where the jobs ran"),
        Column("engine", "string", "`onnx`, `cuda`, `tensorflow` or `numpy`"),
        Column("job_ids", "list<string>", "Spark's application ids"),
        Column("jobs_version", "string", "version of `orchard-jobs` that did the work"),
        Column("features_version", "int64", "Delta version of `features` that holds this batch version"),
        Column("quarantine_version", "int64", "Delta version of `quarantine` that holds this batch version"),
        Column(
            "pca_version",
            "int64",
            "Delta version of `pca_features` that holds this batch version. Null: there was no model yet",
            is_nullable=True,
        ),
        Column("audit_verdict", "string", "`passed`, and any warnings"),
        Column("featurize_seconds", "float64", "seconds of the job's steps"),
        Column("reduce_seconds", "float64", "seconds of the job's steps. Null: there was no model yet", is_nullable=True),
        Column("published_at", "timestamp", "when the row was written"),
    ),
    "One row for each published batch version. A version is whole once its row is here.",
)
MODEL_RUNS = Table(
    "model_runs",
    (),
    (
        Column("run_id", "string", "Airflow's id of the run"),
        Column("backbone", "string", "full name of the backbone"),
        Column("model_id", "string", "the model that the run kept or fitted. Null: there is no model yet", is_nullable=True),
        Column(
            "action",
            "string",
            "`fit`, `keep`, `candidate` (a new model was fitted and not promoted), or `none` where no model is possible yet",
        ),
        Column("reason", "string", "why"),
        Column(
            "gain",
            "float64",
            "share of the merged variance that a refit would gain. Null: there is no model yet",
            is_nullable=True,
        ),
        Column("considered", "string", "digest of what the run judged"),
        Column("batches_projected", "int64", "number of batches that the run projected"),
        Column("published_at", "timestamp", "when the row was written"),
        _KIND,
    ),
    "One row for each run of `pca_model` or `classifier_model` that had something to decide.",
)
CAPTURED = Table(
    "captured",
    (),
    (
        Column("model_id", "string", "the model that the batch version was projected with"),
        Column("batch_id", "string", "the batch"),
        Column("manifest_digest", "string", "names the batch version that was projected"),
        Column(
            "captured",
            "float64",
            "share of the batch version's variance that the model keeps. Null: the batch has no variance",
            is_nullable=True,
        ),
        Column("total", "float64", "that variance: the sum of squares about the batch's own mean"),
    ),
    "How much of each batch's variance a model keeps.",
)

TABLES = (
    *(FEATURES, QUARANTINE, MOMENTS, CLASS_MOMENTS, PCA_FEATURES, PREDICTIONS, RUNS),
    *(MODELS, CLASSIFIERS, PROMOTIONS, PINS, MODEL_RUNS, CAPTURED, EVALUATIONS),
)
