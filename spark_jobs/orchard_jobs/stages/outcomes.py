"""The worker tasks of featurize: a manifest's entries in, one scratch row an outcome out.

In a scratch row a vector is its bytes. Spark takes a list apart, float by float, wherever it goes in or out: to take in
and write a row with a list of 1,280 floats costs the JVM about five times what the row with their bytes costs.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import PROGRESS_SECONDS, Progress
from orchard_jobs.contract.layout import manifest_folder, random_element
from orchard_jobs.contract.manifest import Entry, ManifestHead, read_known
from orchard_jobs.images.backbones import Network, load_network
from orchard_jobs.images.compute import Bad, Good, Intake, Outcome, Tally, compute
from orchard_jobs.images.sources import fetch
from orchard_jobs.stages.staging import lists
from orchard_jobs.storage import Warehouse

OUTCOME_DDL = (
    "kind STRING, image_uri STRING, etag STRING, size_bytes BIGINT, uploaded_at STRING, content_sha256 STRING, "
    "label STRING, width INT, height INT, features BINARY, is_network_run BOOLEAN, reason STRING, message STRING"
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
        ("features", pa.binary()),
        ("is_network_run", pa.bool_()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)
_OUTCOMES_PER_BATCH = 64


@dataclass(frozen=True)
class OutcomeTask:
    """What every worker task of a job is given.

    Attributes:
        head: the manifest's head.
        warehouse: where the network and the known contents lie.
        progress: the folder of the running counts.
        total: the images that all tasks compute.
    """

    head: ManifestHead
    warehouse: Warehouse
    progress: str
    total: int


def work_on(batches: Iterator[pa.RecordBatch], task: OutcomeTask) -> Iterator[pa.RecordBatch]:
    """Turn the entries of one worker task into outcome rows, the last of which carries the task's tally."""
    tally = Tally()
    report = _ProgressFile(task.warehouse, f"{task.progress}/{random_element()}.json", task.total)
    rows: list[dict[str, Any]] = []
    network = _network(task.head.backbone, task.warehouse)
    intake = Intake(task.head.pixel_limit, _known(task.head, task.warehouse))
    for outcome in compute(fetch(_entries_of(batches)), network, intake, tally, report):
        rows.append(_row_of(outcome))
        if len(rows) == _OUTCOMES_PER_BATCH:
            yield pa.RecordBatch.from_pylist(rows, _OUTCOME_SCHEMA)
            rows = []
    report.flush()
    rows.append({"kind": "tally", "image_uri": "", "message": json.dumps(asdict(tally))})
    yield pa.RecordBatch.from_pylist(rows, _OUTCOME_SCHEMA)


def vectors_as_lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Turn the column `features` of good outcomes from bytes into lists of float32."""
    for batch in batches:
        if not batch.num_rows:
            continue
        position = batch.schema.get_field_index("features")
        values = np.frombuffer(b"".join(batch.column(position).to_pylist()), np.float32)
        yield batch.set_column(position, "features", lists(values.reshape(batch.num_rows, -1)))


_loaded: dict[str, Network] = {}


def _network(backbone: Backbone, warehouse: Warehouse) -> Network:
    """Return the network, loaded once a worker process: Spark keeps the process for the next task."""
    if backbone.id not in _loaded:
        _loaded[backbone.id] = load_network(backbone, warehouse)
    return _loaded[backbone.id]


def _known(head: ManifestHead, warehouse: Warehouse) -> frozenset[str]:
    return frozenset() if head.known is None else _read_known(warehouse, f"{manifest_folder(head.digest)}/{head.known.name}")


@lru_cache(maxsize=1)
def _read_known(warehouse: Warehouse, path: str) -> frozenset[str]:
    """Return the known contents of a manifest, read once a worker process."""
    return read_known(warehouse.read(path))


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
    match outcome:
        case Bad():
            return row | {"kind": "bad", "reason": outcome.reason, "message": outcome.message}
        case Good():
            vector, is_run = outcome.features.tobytes(), outcome.is_network_run
            size = {"width": outcome.width, "height": outcome.height}
            return row | {"kind": "good", "features": vector, "is_network_run": is_run} | size
        case _:
            return row | {"kind": "known"}


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
