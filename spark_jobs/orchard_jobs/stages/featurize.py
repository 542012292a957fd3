"""featurize: a manifest becomes the batch's next version: features, quarantine rows and moments, all staged.

Every image goes through the network once: the workers' outcomes are written to a scratch folder in one pass, and the
tables' files are made from there, so no Spark action can run the network again.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from orchard_jobs import __version__
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, Table
from orchard_jobs.contract.jobs import JobReport, StagedPartition
from orchard_jobs.contract.layout import manifest_folder, progress_folder
from orchard_jobs.contract.manifest import ENTRY_DDL, ManifestHead
from orchard_jobs.images.compute import Tally
from orchard_jobs.stages.batch_moments import stage_moments
from orchard_jobs.stages.outcomes import OUTCOME_DDL, OutcomeTask, vectors_as_lists, work_on
from orchard_jobs.stages.staging import Staging, read_files, without_dictionary
from orchard_jobs.storage import Warehouse

# A task costs about 0.2 s beside its images, and the last one of a core runs while the others are idle.
IMAGES_PER_TASK = 256
FEWEST_TASKS = 4


@dataclass(frozen=True)
class _Computed:
    """What the scratch rows of one job add up to."""

    good: int = 0
    bad: int = 0
    known: int = 0
    contents: int = 0
    tally: Tally = field(default_factory=Tally)


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
    with staging.timed("network"):
        outcomes, computed = _compute(spark, staging, head, entries)
    with staging.timed("features"):
        rows = _good_rows(spark, warehouse, head, entries, outcomes)
        count = computed.good + computed.known + head.actions.get("keep", 0) + head.actions.get("reuse", 0)
        features = staging.write(rows, FEATURES, partition, count, "image_uri")
    with staging.timed("quarantine"):
        rows = _quarantine_rows(spark, warehouse, head, entries, outcomes)
        count = computed.bad + head.actions.get("keep_quarantined", 0)
        quarantine = staging.write(rows, QUARANTINE, partition, count, "image_uri")
    with staging.timed("moments"):
        moments = stage_moments(spark, staging, head, features)
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
            "featurized": computed.contents,
            "reused": features.rows - good_missing - computed.contents,
            "quarantined": quarantine.rows - head.missing_quarantined,
            "missing": head.missing,
            "network_runs": computed.tally.network_runs,
        },
        reasons=_reasons(warehouse, quarantine),
        seconds=staging.seconds,
        network=asdict(computed.tally),
    )


def _read_entries(spark: SparkSession, warehouse: Warehouse, head: ManifestHead) -> DataFrame:
    folder = manifest_folder(head.digest)
    return spark.read.schema(ENTRY_DDL).json([warehouse.uri_of(f"{folder}/{part.name}") for part in head.parts])


def _compute(spark: SparkSession, staging: Staging, head: ManifestHead, entries: DataFrame) -> tuple[DataFrame | None, _Computed]:
    """Run the network once over the images to compute; return the scratch rows and their sums."""
    images = head.actions.get("compute", 0)
    if images == 0:
        return None, _Computed()
    tasks = max(FEWEST_TASKS, math.ceil(images / IMAGES_PER_TASK))
    wanted = entries.filter(F.col("action") == "compute")
    spread = wanted.repartition(tasks, "group").sortWithinPartitions("group", "image_uri")
    progress = f"{progress_folder(staging.work)}/{staging.element}"
    worker = partial(work_on, task=OutcomeTask(head, staging.warehouse, progress, images))
    found = spread.mapInArrow(worker, OUTCOME_DDL)
    found.write.options(**without_dictionary("features")).parquet(staging.scratch_uri("outcomes"))
    outcomes = spark.read.schema(OUTCOME_DDL).parquet(staging.scratch_uri("outcomes"))
    return outcomes, _sum_up(staging)


def _sum_up(staging: Staging) -> _Computed:
    """Add up the scratch rows from a few small columns of their files: a Spark job for it would cost more than a second."""
    tally, rows, contents = Tally(), Counter[str](), set[str]()
    for path in staging.scratch_files("outcomes"):
        with pq.ParquetFile(staging.warehouse.open(path)) as opened:
            told = opened.read(columns=["kind", "is_network_run", "content_sha256"])
            rows.update(told["kind"].to_pylist())
            contents.update(told.filter(told["is_network_run"])["content_sha256"].to_pylist())
            for batch in opened.iter_batches(columns=["kind", "message"]):
                texts = batch.filter(pc.equal(batch.column("kind"), "tally")).column("message").to_pylist()
                tally = sum((Tally(**json.loads(text)) for text in texts), tally)
    return _Computed(rows["good"], rows["bad"], rows["known"], len(contents), tally)


def _good_rows(
    spark: SparkSession, warehouse: Warehouse, head: ManifestHead, entries: DataFrame, outcomes: DataFrame | None
) -> DataFrame:
    """Return every features row of the version: computed, kept and reused."""
    parts = []
    if outcomes is not None:
        computed = outcomes.filter(F.col("kind") == "good").withColumn("computed_in", F.lit(head.digest))
        computed = computed.withColumn("uploaded_at", F.to_timestamp("uploaded_at")).select(*_FEATURES_CARRIED)
        parts.append(computed.mapInArrow(vectors_as_lists, _FEATURES_CARRIED_DDL))
    if head.features_files:
        published = read_files(spark, warehouse, head.features_files)
        parts.append(_kept(published, entries, "keep").select(*_FEATURES_CARRIED))
    if head.vector_files:
        vectors = read_files(spark, warehouse, head.vector_files)
        parts.append(_with_vectors(_reused(entries, outcomes), vectors).select(*_FEATURES_CARRIED))
    return _stamped(parts, head, FEATURES, spark)


def _quarantine_rows(
    spark: SparkSession, warehouse: Warehouse, head: ManifestHead, entries: DataFrame, outcomes: DataFrame | None
) -> DataFrame:
    """Return every quarantine row of the version: new and kept."""
    parts = []
    if outcomes is not None:
        bad = outcomes.filter(F.col("kind") == "bad")
        parts.append(bad.withColumn("uploaded_at", F.to_timestamp("uploaded_at")).select(*_QUARANTINE_CARRIED))
    if head.quarantine_files:
        published = read_files(spark, warehouse, head.quarantine_files)
        parts.append(_kept(published, entries, "keep_quarantined").select(*_QUARANTINE_CARRIED))
    return _stamped(parts, head, QUARANTINE, spark)


_STAMPED = ("manifest_digest", "jobs_version")
_FEATURES_CARRIED = [name for name in FEATURES.column_names if name not in _STAMPED]
_FEATURES_CARRIED_DDL = FEATURES.spark_ddl_of(_FEATURES_CARRIED)
_QUARANTINE_CARRIED = [name for name in QUARANTINE.column_names if name not in _STAMPED]


def _stamped(parts: list[DataFrame], head: ManifestHead, table: Table, spark: SparkSession) -> DataFrame:
    if not parts:
        return spark.createDataFrame([], table.spark_ddl)
    rows = parts[0]
    for part in parts[1:]:
        rows = rows.unionByName(part)
    stamped = rows.withColumn("manifest_digest", F.lit(head.digest)).withColumn("jobs_version", F.lit(__version__))
    return stamped.select(*table.column_names)


def _kept(published: DataFrame, entries: DataFrame, action: str) -> DataFrame:
    wanted = entries.filter(F.col("action") == action).select("image_uri", "etag")
    return published.join(wanted, ["image_uri", "etag"])


def _reused(entries: DataFrame, outcomes: DataFrame | None) -> DataFrame:
    """Return the images whose content has a published vector: planned ones, and those that only their bytes could tell."""
    names = ("image_uri", "etag", "size_bytes", "uploaded_at", "label", "content_sha256")
    planned = entries.filter(F.col("action") == "reuse").select(*names)
    if outcomes is None:
        return planned
    return planned.unionByName(outcomes.filter(F.col("kind") == "known").select(*names))


def _with_vectors(images: DataFrame, published: DataFrame) -> DataFrame:
    vectors = published.select("content_sha256", "width", "height", "features", "computed_in")
    rows = images.join(vectors.dropDuplicates(["content_sha256"]), "content_sha256")
    return rows.withColumn("uploaded_at", F.to_timestamp("uploaded_at"))


def _reasons(warehouse: Warehouse, quarantine: StagedPartition) -> dict[str, int]:
    found: Counter[str] = Counter()
    for file in quarantine.files:
        found.update(pq.read_table(warehouse.open(file.path), columns=["reason"]).column(0).to_pylist())
    return dict(sorted(found.items()))
