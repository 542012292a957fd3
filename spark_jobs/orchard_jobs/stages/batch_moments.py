"""The moments of a batch version: partial ones in the workers, merged one after the other by the driver."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from orchard_jobs.audit.schemas import arrow_schema
from orchard_jobs.contract.columns import MOMENTS
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.stages.staging import Staging, lists, read_files, vectors, without_dictionary
from orchard_jobs.storage import Warehouse


def stage_moments(
    spark: SparkSession, staging: Staging, head: ManifestHead, features: StagedPartition
) -> tuple[StagedPartition, ...]:
    """Stage the version's moments, unless they would be larger than its features (n < dimension / 2)."""
    if features.rows < head.backbone.dimension / 2:
        return ()
    rows = read_files(spark, staging.warehouse, tuple(file.path for file in features.files)).select("features")
    partial_rows = rows.mapInArrow(_partial_moments, "n BIGINT, mean BINARY, second_moment BINARY")
    partial_rows.write.options(**without_dictionary("second_moment")).parquet(staging.scratch_uri("moments"))
    merged = merge_all(_read_moments(staging.warehouse, staging.scratch_files("moments")))
    columns = [[head.digest], [merged.n], lists(merged.mean[np.newaxis]), lists(merged.packed()[np.newaxis])]
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=arrow_schema(MOMENTS))
    return (staging.write_arrow(table, MOMENTS, (head.backbone.id, head.batch_id)),)


def _partial_moments(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    merged = merge_all(Moments.of(vectors(batch.column(0))) for batch in batches if batch.num_rows)
    if merged.n == 0:
        return
    # As bytes: Spark would take a list of 820,000 numbers apart, one by one.
    columns = {"n": [merged.n], "mean": [merged.mean.tobytes()], "second_moment": [merged.packed().tobytes()]}
    yield pa.RecordBatch.from_pydict(columns)


def _read_moments(warehouse: Warehouse, paths: Iterable[str]) -> Iterator[Moments]:
    """Yield partial moments one after the other: together they would not fit a driver."""
    for path in paths:
        for batch in pq.ParquetFile(warehouse.open(path)).iter_batches(batch_size=1):
            row = batch.to_pydict()
            mean, triangle = (np.frombuffer(row[name][0]) for name in ("mean", "second_moment"))
            yield Moments.unpacked(row["n"][0], mean, triangle)
