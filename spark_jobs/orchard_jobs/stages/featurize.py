"""featurize: a manifest becomes the batch's next version: features, quarantine rows and moments, all staged.

Every image goes through the network once: the workers' outcomes are written to a scratch folder in one pass, and the
tables' files are made from there, so no Spark action can run the network again.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from orchard_jobs import __version__
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, Table
from orchard_jobs.contract.jobs import PROGRESS_SECONDS, JobReport, Progress, StagedPartition
from orchard_jobs.contract.layout import manifest_folder, progress_folder, random_element
from orchard_jobs.contract.manifest import ENTRY_DDL, Entry, ManifestHead
from orchard_jobs.images.backbones import Network, load_network
from orchard_jobs.images.compute import Bad, Outcome, Tally, compute
from orchard_jobs.images.sources import fetch
from orchard_jobs.stages.batch_moments import stage_moments
from orchard_jobs.stages.staging import Staging, read_files
from orchard_jobs.storage import Warehouse

IMAGES_PER_TASK = 256
FEWEST_TASKS = 4
_OUTCOME_DDL = (
    "kind STRING, image_uri STRING, etag STRING, size_bytes BIGINT, uploaded_at STRING, content_sha256 STRING, "
    "label STRING, width INT, height INT, features ARRAY<FLOAT>, is_network_run BOOLEAN, reason STRING, message STRING"
)
_OUTCOME_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("image_uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("uploaded_at", pa.string()),
        ("content_sha256", pa.string()),
        ("label", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("features", pa.list_(pa.float32())),
        ("is_network_run", pa.bool_()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)
_OUTCOMES_PER_BATCH = 64


@dataclass(frozen=True)
class _Computed:
    """What the scratch rows of one job add up to."""

    good: int = 0
    bad: int = 0
    network_runs: int = 0
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
        count = computed.good + head.actions.get("keep", 0) + head.actions.get("reuse", 0)
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
            "featurized": computed.network_runs,
            "reused": features.rows - good_missing - computed.network_runs,
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
    worker = partial(
        _work_on,
        head=head,
        warehouse=staging.warehouse,
        progress=f"{progress_folder(staging.work)}/{staging.element}",
        total=images,
    )
    spread.mapInArrow(worker, _OUTCOME_DDL).write.parquet(staging.scratch_uri("outcomes"))
    outcomes = spark.read.schema(_OUTCOME_DDL).parquet(staging.scratch_uri("outcomes"))
    return outcomes, _sum_up(outcomes)


def _sum_up(outcomes: DataFrame) -> _Computed:
    tally, good, bad, network_runs = Tally(), 0, 0, 0
    for row in outcomes.groupBy("kind", "is_network_run").count().collect():
        good += row["count"] if row["kind"] == "good" else 0
        bad += row["count"] if row["kind"] == "bad" else 0
        network_runs += row["count"] if row["is_network_run"] else 0
    for row in outcomes.filter(F.col("kind") == "tally").select("message").collect():
        tally += Tally(**json.loads(row["message"]))
    return _Computed(good, bad, network_runs, tally)


def _work_on(
    batches: Iterator[pa.RecordBatch], head: ManifestHead, warehouse: Warehouse, progress: str, total: int
) -> Iterator[pa.RecordBatch]:
    """Turn the entries of one worker task into outcome rows, the last of which carries the task's tally."""
    tally = Tally()
    report = _ProgressFile(warehouse, f"{progress}/{random_element()}.json", total)
    rows: list[dict[str, Any]] = []
    network = _network(head.backbone, warehouse)
    for outcome in compute(fetch(_entries_of(batches)), network, head.pixel_limit, tally, report):
        rows.append(_row_of(outcome))
        if len(rows) == _OUTCOMES_PER_BATCH:
            yield pa.RecordBatch.from_pylist(rows, _OUTCOME_SCHEMA)
            rows = []
    report.flush()
    rows.append({"kind": "tally", "image_uri": "", "message": json.dumps(asdict(tally))})
    yield pa.RecordBatch.from_pylist(rows, _OUTCOME_SCHEMA)


_loaded: dict[str, Network] = {}


def _network(backbone: Backbone, warehouse: Warehouse) -> Network:
    """Return the network, loaded once a worker process: Spark keeps the process for the next task."""
    if backbone.id not in _loaded:
        _loaded[backbone.id] = load_network(backbone, warehouse)
    return _loaded[backbone.id]


def _entries_of(batches: Iterator[pa.RecordBatch]) -> Iterator[Entry]:
    for batch in batches:
        for row in batch.to_pylist():
            yield Entry(**row)


def _row_of(outcome: Outcome) -> dict[str, Any]:
    entry = outcome.entry
    row = {
        "image_uri": entry.image_uri,
        "etag": entry.etag,
        "size_bytes": entry.size_bytes,
        "uploaded_at": entry.uploaded_at,
        "content_sha256": outcome.content_sha256,
        "label": entry.label,
    }
    if isinstance(outcome, Bad):
        return row | {"kind": "bad", "reason": outcome.reason, "message": outcome.message}
    return row | {
        "kind": "good",
        "width": outcome.width,
        "height": outcome.height,
        "features": outcome.features,
        "is_network_run": outcome.is_network_run,
    }


class _ProgressFile:
    """The running count of one worker task, written at most every two seconds. Never data."""

    def __init__(self, warehouse: Warehouse, path: str, total: int) -> None:
        self._warehouse, self._path, self._total = warehouse, path, total
        self._done = 0
        self._written_at = 0.0

    def __call__(self, done: int) -> None:
        self._done = done
        if time.monotonic() - self._written_at >= PROGRESS_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._written_at = time.monotonic()
        self._warehouse.rewrite(self._path, json.dumps(asdict(Progress(self._done, self._total))).encode())


def _good_rows(
    spark: SparkSession, warehouse: Warehouse, head: ManifestHead, entries: DataFrame, outcomes: DataFrame | None
) -> DataFrame:
    """Return every features row of the version: computed, kept and reused."""
    parts = []
    if outcomes is not None:
        computed = outcomes.filter(F.col("kind") == "good").withColumn("computed_in", F.lit(head.digest))
        parts.append(computed.withColumn("uploaded_at", F.to_timestamp("uploaded_at")).select(*_FEATURES_CARRIED))
    if head.features_files:
        published = read_files(spark, warehouse, head.features_files)
        parts.append(_kept(published, entries, "keep").select(*_FEATURES_CARRIED))
    if head.vector_files:
        parts.append(_reused(read_files(spark, warehouse, head.vector_files), entries).select(*_FEATURES_CARRIED))
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


def _reused(published: DataFrame, entries: DataFrame) -> DataFrame:
    vectors = published.select("content_sha256", "width", "height", "features", "computed_in")
    wanted = entries.filter(F.col("action") == "reuse").drop("action", "group")
    rows = wanted.join(vectors.dropDuplicates(["content_sha256"]), "content_sha256")
    return rows.withColumn("uploaded_at", F.to_timestamp("uploaded_at"))


def _reasons(warehouse: Warehouse, quarantine: StagedPartition) -> dict[str, int]:
    found: Counter[str] = Counter()
    for file in quarantine.files:
        found.update(pq.read_table(warehouse.open(file.path), columns=["reason"]).column(0).to_pylist())
    return dict(sorted(found.items()))
