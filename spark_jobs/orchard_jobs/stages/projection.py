"""What `reduce` and `project` share: features x a PCA model -> pca_features rows, and what the model keeps of a batch."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from orchard_jobs import __version__
from orchard_jobs.contract.columns import PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, StagedPartition
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.pca.project import VarianceTally, project
from orchard_jobs.stages.staging import Staging, lists, read_files, vectors
from orchard_jobs.storage import Warehouse

Matrix = NDArray[np.float64]
_PROJECTED_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("content_sha256", pa.string()),
        ("label", pa.string()),
        ("pca_features", pa.list_(pa.float32())),
    ]
)
_PROJECTED_DDL = "image_uri STRING, content_sha256 STRING, label STRING, pca_features ARRAY<FLOAT>"
_INPUT = ("image_uri", "content_sha256", "label", "features")
_ROWS_PER_BATCH = 1024


def project_batch(
    spark: SparkSession, staging: Staging, model: ModelReference, basis: tuple[Matrix, Matrix], batch: BatchVersion
) -> StagedPartition:
    """Stage one batch version's pca_features."""
    partition = (model.model_id, batch.batch_id)
    if not batch.files:
        return StagedPartition(PCA_FEATURES.name, partition, ())
    features = read_files(spark, staging.warehouse, batch.files).select(*_INPUT)
    rows = _stamped(features.mapInArrow(partial(_project_rows, basis=basis), _PROJECTED_DDL), batch.manifest_digest)
    # The features lie in sorted files of bounded size, and so do these.
    return staging.write(rows, PCA_FEATURES, partition, _rows_in(staging.warehouse, batch), "image_uri")


def captured_by(warehouse: Warehouse, model: ModelReference, basis: tuple[Matrix, Matrix], batch: BatchVersion) -> Captured:
    """Return how much of a batch's variance a model keeps, streaming over its features."""
    tally = VarianceTally.empty(*basis)
    for path in batch.files:
        for rows in pq.ParquetFile(warehouse.open(path)).iter_batches(_ROWS_PER_BATCH, columns=["features"]):
            tally = tally.add(vectors(rows.column(0)))
    return tally.captured(model.model_id, batch.batch_id, batch.manifest_digest)


def _rows_in(warehouse: Warehouse, batch: BatchVersion) -> int:
    return sum(pq.ParquetFile(warehouse.open(path)).metadata.num_rows for path in batch.files)


def _stamped(rows: DataFrame, manifest_digest: str) -> DataFrame:
    stamped = rows.withColumn("manifest_digest", F.lit(manifest_digest)).withColumn("jobs_version", F.lit(__version__))
    return stamped.select(*PCA_FEATURES.column_names)


def _project_rows(batches: Iterator[pa.RecordBatch], basis: tuple[Matrix, Matrix]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if not batch.num_rows:
            continue
        projected = project(vectors(batch.column("features")), *basis).astype(np.float32)
        columns = [batch.column(name) for name in _INPUT[:3]]
        yield pa.RecordBatch.from_arrays([*columns, lists(projected)], schema=_PROJECTED_SCHEMA)
