"""featurize: a manifest becomes the batch's next version: features, quarantine rows and moments, all staged.

Every image goes through the network once: the workers write the rows of what they computed in the one pass that runs it, so no
Spark action can run it again. The rows that are kept or reused are copied in a second pass, where there are any.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from orchard_jobs import __version__
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, Table
from orchard_jobs.contract.jobs import JobReport, StagedPartition
from orchard_jobs.contract.layout import manifest_folder, progress_folder
from orchard_jobs.contract.manifest import ENTRY_DDL, Entry, ManifestHead, read_part, write_entries
from orchard_jobs.stages.batch_moments import PartialMoments, has_moments, stage_moments
from orchard_jobs.stages.outcomes import KNOWN_DDL, TOLD_DDL, OutcomeTask, Told, work_on
from orchard_jobs.stages.staging import OnFile, Staging, read_files, vectors
from orchard_jobs.storage import Warehouse

# A task's good images are one features file, and a task is what a lost worker loses: enough tasks for a cluster first, then
# larger ones. Tasks are alike in size, so two or four cores end together when each has as many.
_SMALLEST_TASK, _LARGEST_TASK, _TASKS_FOR_A_CLUSTER, _TASKS_AT_ONCE = 512, 2048, 64, 4


def featurize(spark: SparkSession, warehouse: Warehouse, head: ManifestHead, work: str) -> JobReport:
    """Stage the batch version that a manifest describes.

    Args:
        spark: the session.
        warehouse: where the manifest lies and the tables' files go.
        head: the manifest's head.
        work: the work digest, which names the folders.

    Returns:
        The report, not yet written.

    Raises:
        JobError: images could not be fetched for another reason than their absence, or the network failed.
    """
    staging = Staging(warehouse, work)
    partition = (head.backbone.id, head.batch_id)
    entries = _read_entries(spark, warehouse, head)
    partials = PartialMoments(warehouse, staging.scratch_path("moments"))
    # How many images are good is known once they are read: partial moments are written when there may be enough.
    on_file = partials.write if has_moments(head, head.listed + head.missing) else None
    with staging.timed("network"):
        told = _compute(spark, staging, head, on_file)
    with staging.timed("features"):
        rows = _copied_features(spark, warehouse, head, entries, told)
        count = told.known_images + head.actions.get("keep", 0) + head.actions.get("reuse", 0)
        copied = staging.write(rows, FEATURES, partition, count, "image_uri", on_file) if rows else ()
        features = StagedPartition(FEATURES.name, partition, told.features + copied)
    with staging.timed("quarantine"):
        rows = _kept_quarantine(spark, warehouse, head, entries)
        count = head.actions.get("keep_quarantined", 0)
        kept = staging.write(rows, QUARANTINE, partition, count, "image_uri") if rows else ()
        quarantine = StagedPartition(QUARANTINE.name, partition, told.quarantine + kept)
    with staging.timed("moments"):
        moments = (stage_moments(staging, head, partials, features),) if has_moments(head, features.rows) else ()
    good_missing = head.missing - head.missing_quarantined
    return JobReport(
        work=work,
        stage="featurize",
        input_digest=head.digest,
        backbone=head.backbone.id,
        jobs_version=__version__,
        job_id=spark.conf.get("spark.app.id", "") or "",
        partitions=(features, quarantine, *moments),
        counts={
            "listed": head.listed,
            "featurized": len(told.contents),
            "reused": features.rows - good_missing - len(told.contents),
            "quarantined": quarantine.rows - head.missing_quarantined,
            "missing": head.missing,
            "network_runs": told.tally.network_runs,
        },
        reasons=_reasons(warehouse, quarantine),
        seconds=staging.seconds,
        network=asdict(told.tally),
    )


def _read_entries(spark: SparkSession, warehouse: Warehouse, head: ManifestHead) -> DataFrame:
    folder = manifest_folder(head.digest)
    return spark.read.schema(ENTRY_DDL).json([warehouse.uri_of(f"{folder}/{part.name}") for part in head.parts])


def _compute(spark: SparkSession, staging: Staging, head: ManifestHead, on_features: OnFile | None) -> Told:
    """Run the network once over the images to compute; return what was written."""
    images = head.actions.get("compute", 0)
    if images == 0:
        return Told()
    shards = _write_shards(staging, head, images)
    partition = (head.backbone.id, head.batch_id)
    task = OutcomeTask(
        head=head,
        shards=shards,
        features=staging.writer(FEATURES, partition),
        quarantine=staging.writer(QUARANTINE, partition),
        on_features=on_features,
        known=staging.scratch_path("known"),
        progress=f"{progress_folder(staging.work)}/{staging.element}",
        total=images,
    )
    # Spark has no part in who computes what: a shuffle of the entries would cost more than a second, and give uneven tasks.
    tasks = spark.range(0, len(shards), 1, len(shards)).mapInArrow(partial(work_on, task=task), TOLD_DDL)
    return sum((Told.from_json(row["told"]) for row in tasks.collect()), Told())


def _write_shards(staging: Staging, head: ManifestHead, images: int) -> tuple[str, ...]:
    """Write the entries to compute in shards, a task each; return their paths. Entries of one group share a shard."""
    of_parts = (staging.warehouse.read(f"{manifest_folder(head.digest)}/{part.name}") for part in head.parts)
    wanted = (entry for packed in of_parts for entry in read_part(packed) if entry.action == "compute")
    groups = groupby(sorted(wanted, key=lambda entry: (entry.group, entry.image_uri)), key=lambda entry: entry.group)
    largest = min(_LARGEST_TASK, max(_SMALLEST_TASK, images // _TASKS_FOR_A_CLUSTER))
    tasks = _TASKS_AT_ONCE * math.ceil(images / (_TASKS_AT_ONCE * largest))
    shards: list[list[Entry]] = [[]]
    for _, group in groups:
        if len(shards[-1]) >= math.ceil(images / tasks):
            shards.append([])
        shards[-1].extend(group)
    paths = tuple(f"{staging.scratch_path('shards')}/{number:05d}.jsonl.gz" for number in range(len(shards)))
    for path, entries in zip(paths, shards, strict=True):
        staging.warehouse.create(path, write_entries(entries))
    return paths


def _copied_features(
    spark: SparkSession, warehouse: Warehouse, head: ManifestHead, entries: DataFrame, told: Told
) -> DataFrame | None:
    """Return the features rows of the version that are kept and reused, or None."""
    parts = []
    if head.features_files:
        published = read_files(spark, warehouse, head.features_files, FEATURES)
        parts.append(_kept(published, entries, "keep").select(*_CARRIED))
    if head.actions.get("reuse", 0) or told.known:
        published = read_files(spark, warehouse, head.vector_files, FEATURES)
        parts.append(_with_vectors(_reused(spark, warehouse, entries, told), published).select(*_CARRIED))
    if not parts:
        return None
    rows = parts[0].unionByName(parts[1]) if len(parts) > 1 else parts[0]
    return _stamped(rows.mapInArrow(_with_bytes, _CARRIED_DDL), head, FEATURES)


def _kept_quarantine(spark: SparkSession, warehouse: Warehouse, head: ManifestHead, entries: DataFrame) -> DataFrame | None:
    """Return the quarantine rows of the version that are kept, or None."""
    if not head.quarantine_files:
        return None
    published = read_files(spark, warehouse, head.quarantine_files, QUARANTINE)
    return _stamped(_kept(published, entries, "keep_quarantined"), head, QUARANTINE)


_STAMPED = ("manifest_digest", "jobs_version")
_CARRIED = [name for name in FEATURES.column_names if name not in _STAMPED]
# On the way to the writers a vector is its bytes.
_CARRIED_DDL = FEATURES.spark_ddl_of(_CARRIED).replace("ARRAY<FLOAT>", "BINARY")


def _with_bytes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Turn the column `features` from lists of float32 into their bytes."""
    for batch in batches:
        if batch.num_rows:
            position = batch.schema.get_field_index("features")
            packed = pa.array([row.tobytes() for row in vectors(batch.column(position))], pa.binary())
            yield batch.set_column(position, "features", packed)


def _stamped(rows: DataFrame, head: ManifestHead, table: Table) -> DataFrame:
    stamped = rows.withColumn("manifest_digest", F.lit(head.digest)).withColumn("jobs_version", F.lit(__version__))
    return stamped.select(*table.column_names)


def _kept(published: DataFrame, entries: DataFrame, action: str) -> DataFrame:
    wanted = entries.filter(F.col("action") == action).select("image_uri", "etag")
    return published.join(wanted, ["image_uri", "etag"])


def _reused(spark: SparkSession, warehouse: Warehouse, entries: DataFrame, told: Told) -> DataFrame:
    """Return the images whose content has a published vector: planned ones, and those that only their bytes could tell."""
    names = ("image_uri", "etag", "size_bytes", "uploaded_at", "label", "content_sha256")
    planned = entries.filter(F.col("action") == "reuse").withColumn("uploaded_at", F.to_timestamp("uploaded_at"))
    if not told.known:
        return planned.select(*names)
    known = spark.read.schema(KNOWN_DDL).parquet(*(warehouse.uri_of(path) for path in told.known))
    return planned.select(*names).unionByName(known.select(*names))


def _with_vectors(images: DataFrame, published: DataFrame) -> DataFrame:
    vectors = published.select("content_sha256", "width", "height", "features", "computed_in")
    return images.join(vectors.dropDuplicates(["content_sha256"]), "content_sha256")


def _reasons(warehouse: Warehouse, quarantine: StagedPartition) -> dict[str, int]:
    found: Counter[str] = Counter()
    for file in quarantine.files:
        found.update(pq.read_table(warehouse.open(file.path), columns=["reason"]).column(0).to_pylist())
    return dict(sorted(found.items()))
