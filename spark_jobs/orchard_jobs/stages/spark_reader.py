"""Featurize where Python workers have no network: Spark reads the images and hands the workers' files back to the driver.

Spark joins the images' bytes to the manifest's entries. A worker puts a shard of them through the backbone and returns the
files of its rows, which the driver writes. The driver itself fetches and computes what Spark's reader ignores: empty objects, and
keys with an element that is empty or begins with `.` or `_`. It also takes objects that changed since the listing, and those that
are larger than a worker's share of memory. Nobody reads objects over the size limit.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from orchard_jobs.contract.layout import BackbonePath, backbone_path, manifest_path
from orchard_jobs.contract.locations import common_folder, hadoop_uri
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.errors import JobError
from orchard_jobs.images.sources import Fetched, fetch, listed_as_before
from orchard_jobs.stages.featurize_task import FeaturizeTask, ProgressFile, TaskResult, featurize_images
from orchard_jobs.storage import DetachedWarehouse

# Shards whose files the driver holds at once: each at most 2,048 features and their moments of both kinds, 25 MB.
_SHARDS_AT_ONCE = 24
# Partitions a shard: shards are placed by a hash, and two in one partition wait for each other.
_PARTITIONS = 4
# The images that Spark may hand to a worker at once: it may have 1 GB for everything, its decoder and the backbone included.
BYTES_PER_SHARD = 64 * 1024 * 1024
_BYTES_PER_BATCH, _ROWS_PER_BATCH = 16 * 1024 * 1024, "spark.sql.execution.arrow.maxRecordsPerBatch"
_GLOB = str.maketrans({character: f"\\{character}" for character in "\\[]{}*?"})

Shards = Sequence[Sequence[Entry]]


def compute_from_spark(spark: SparkSession, task: FeaturizeTask, shards: Shards) -> TaskResult:
    """Put shards of entries through the backbone, each image once; return the results together.

    Args:
        spark: the session.
        task: what every worker task is given, with the real warehouse.
        shards: the entries to compute; those of one group are in one shard.

    Raises:
        JobError: an object was overwritten while Spark read it, or Spark did not read all that it listed.
    """
    entries = list(chain.from_iterable(shards))
    if not entries:
        return TaskResult()
    names = _names(spark, common_folder(entry.image_uri for entry in entries))
    as_listed = listed_as_before(entries)
    wanted = [entry for entry in entries if entry.size_bytes <= min(task.head.object_limit, BYTES_PER_SHARD)]
    readable = {entry.image_uri for entry in wanted if entry.image_uri in as_listed and hadoop_uri(entry.image_uri) in names}
    # A group stays together: its members may be equal, and equal ones are computed once.
    left_groups = {entry.group for entry in entries if entry.image_uri not in readable}
    left = [entry for entry in entries if entry.group in left_groups]
    read = [some for shard in shards if (some := [entry for entry in shard if entry.group not in left_groups])]
    progress = ProgressFile.of(task)
    result = TaskResult()
    with _small_batches(spark, max((entry.size_bytes for entry in wanted), default=1)):
        for first in range(0, len(read), _SHARDS_AT_ONCE):
            result += _compute(spark, task, read[first : first + _SHARDS_AT_ONCE], names)
            progress(result.tally.images)
    progress.flush()
    _check_unchanged(list(chain.from_iterable(read)))
    return result + sum(featurize_images(fetch(left, task.fetch_limits), task), TaskResult()) if left else result


@contextmanager
def _small_batches(spark: SparkSession, largest_bytes: int) -> Iterator[None]:
    """Have Spark hand a worker few images at a time; where the platform does not take the setting, it hands a whole shard."""
    rows = max(1, _BYTES_PER_BATCH // max(1, largest_bytes))
    try:
        before = spark.conf.get(_ROWS_PER_BATCH) or "0"
        spark.conf.set(_ROWS_PER_BATCH, str(min(rows, int(before) if int(before) > 0 else rows)))
    except (PySparkException, ValueError):
        yield
        return
    try:
        yield
    finally:
        spark.conf.set(_ROWS_PER_BATCH, before)


def _compute(spark: SparkSession, task: FeaturizeTask, shards: Shards, names: dict[str, str]) -> TaskResult:
    """Compute some shards on the workers, and write the files that come back."""
    compute_partition = partial(_compute_partition, task=task.in_warehouse(_detached_warehouse(task)))
    result = TaskResult()
    for path, content in _read(spark, shards, names).mapInArrow(compute_partition, "path STRING, content BINARY").collect():
        if path is None:
            result += TaskResult.from_json(bytes(content).decode())
        else:
            task.warehouse.create(path, bytes(content))
    wanted = [entry.image_uri for shard in shards for entry in shard]
    if result.tally.images != len(wanted):
        raise JobError(
            f"Spark read {result.tally.images} of {len(wanted)} images below {common_folder(wanted)!r}, all of which it had "
            "listed: nothing is published; run the task again"
        )
    return result


def _read(spark: SparkSession, shards: Shards, names: dict[str, str]) -> DataFrame:
    """Return a row for each image, a shard in one partition: its shard's index, its entry as JSON and its bytes."""
    entries = list(chain.from_iterable(shards))
    images = _files(spark, common_folder(entry.image_uri for entry in entries))
    if len(entries) < len(names):
        # Spark leaves files out by this column before it reads them.
        images = images.where(sql.col("_metadata.file_path").isin([names[hadoop_uri(entry.image_uri)] for entry in entries]))
    rows = [
        (index, position, hadoop_uri(entry.image_uri), json.dumps(vars(entry)))
        for index, shard in enumerate(shards)
        for position, entry in enumerate(shard)
    ]
    frame = spark.createDataFrame(rows, "index BIGINT, position BIGINT, path STRING, entry STRING")
    joined = images.select("path", "content").join(sql.broadcast(frame), "path")
    sharded = joined.repartition(_PARTITIONS * len(shards), "index").sortWithinPartitions("index", "position")
    return sharded.select("index", "entry", "content")


def _compute_partition(batches: Iterator[pa.RecordBatch], task: FeaturizeTask) -> Iterator[pa.RecordBatch]:
    """Compute the shards of a partition; yield a row for each file, and one with a null path for the result."""
    rows = (row for batch in batches for row in _rows(batch))
    assert isinstance(task.warehouse, DetachedWarehouse)
    for _, of_shard in groupby(rows, key=itemgetter("index")):
        for result in featurize_images(_images(of_shard), task):
            written = [*task.warehouse.take_created(), (None, result.to_json().encode())]
            for path, content in written:
                yield pa.RecordBatch.from_pydict(
                    {"path": pa.array([path], pa.string()), "content": pa.array([content], pa.binary())}
                )


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows, the bytes of one image at a time in Python."""
    for position in range(batch.num_rows):
        yield {name: column[position].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _images(rows: Iterator[dict[str, Any]]) -> Iterator[Fetched]:
    return ((Entry(**json.loads(row["entry"])), row["content"]) for row in rows)


def _detached_warehouse(task: FeaturizeTask) -> DetachedWarehouse:
    """Return a warehouse that holds what a worker reads: the exported backbone and the known contents."""
    head = task.head
    exported = [backbone_path(head.backbone.export_id), str(BackbonePath(head.backbone.export_id, "sha256"))]
    paths = exported if head.backbone.is_exported else []
    paths += [manifest_path(head.digest, head.known.name)] if head.known else []
    found = {path: task.warehouse.read_if_there(path) for path in paths}
    return DetachedWarehouse(task.warehouse.uri, {path: content for path, content in found.items() if content is not None})


def _check_unchanged(entries: list[Entry]) -> None:
    """Raise JobError when an object is not as it was listed, for Spark's reader has no If-Match."""
    as_listed = listed_as_before(entries)
    changed = [entry.image_uri for entry in entries if entry.image_uri not in as_listed]
    if changed:
        raise JobError(
            f"{len(changed)} images were overwritten or removed while they were read, among them {changed[0]!r}: nothing is "
            "published; run the task again"
        )


def _names(spark: SparkSession, folder: str) -> dict[str, str]:
    """Return the files below a folder that Spark reads: path -> the name by which it knows a file before it reads it."""
    try:
        return {row[0]: row[1] for row in _files(spark, folder).select("path", "_metadata.file_path").collect()}
    except AnalysisException as error:
        if "PATH_NOT_FOUND" in str(error):
            return {}
        raise


def _files(spark: SparkSession, folder: str) -> DataFrame:
    return spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(folder.translate(_GLOB))
