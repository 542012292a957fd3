"""A worker's task over one shard, in one Arrow batch, as Spark hands it over; a program of its own, so that its memory is alone.

Arguments: the shard as an Arrow stream, the manifest's head as JSON, and the exported backbone. Prints each result's tally.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.stages.featurize_task import FeaturizeTask
from orchard_jobs.stages.spark_reader import _compute_partition
from orchard_jobs.stages.staging import OwnPaths, StagedWriter, VersionWriter
from orchard_jobs.storage import DetachedWarehouse


def batches(stream: str) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(pa.OSFile(stream)) as reader:
        yield from reader


def main(stream: str, head_file: str, backbone_file: str) -> None:
    head = ManifestHead.from_json(Path(head_file).read_bytes())
    warehouse = DetachedWarehouse("s3://bucket/w", {backbone_path(head.backbone.id): Path(backbone_file).read_bytes()})
    partition, paths = (head.backbone.id, head.batch_id), OwnPaths("d" * 64)
    good, bad = (VersionWriter(StagedWriter(warehouse, table, partition, paths), head.digest) for table in (FEATURES, QUARANTINE))
    task = FeaturizeTask(head, good, bad, paths, head.listed)
    for batch in _compute_partition(batches(stream), task):
        for path, content in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if path is None:
                print(content.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
