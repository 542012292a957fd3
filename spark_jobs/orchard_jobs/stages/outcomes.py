"""The worker tasks of featurize: a manifest's entries in, the table files of their outcomes out.

A task's images become a features file and a quarantine file as soon as the last of them is through the network, so no row passes
the JVM, and the only thing that a task gives back to Spark is what it wrote.
"""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchard_jobs import __version__
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import PROGRESS_SECONDS, Progress, StagedFile
from orchard_jobs.contract.layout import manifest_folder, random_element
from orchard_jobs.contract.manifest import Entry, ManifestHead, read_known, read_part
from orchard_jobs.images.backbones import Network, load_network
from orchard_jobs.images.compute import Bad, Good, Intake, Known, Outcome, Tally, compute
from orchard_jobs.images.sources import fetch
from orchard_jobs.stages.staging import OnFile, StagedWriter
from orchard_jobs.storage import Warehouse

TOLD_DDL = "told STRING"
KNOWN_DDL = "image_uri STRING, etag STRING, size_bytes BIGINT, uploaded_at TIMESTAMP, label STRING, content_sha256 STRING"
_KNOWN_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("uploaded_at", pa.timestamp("us", tz="UTC")),
        ("label", pa.string()),
        ("content_sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class OutcomeTask:
    """What every worker task of a job is given.

    Attributes:
        head: the manifest's head.
        shards: the files of the entries to compute, a task each.
        features: writes features files.
        quarantine: writes quarantine files.
        on_features: called with the rows and the path of each features file.
        known: the folder of scratch files of images whose content has features elsewhere.
        progress: the folder of the running counts.
        total: the images that all tasks compute.
    """

    head: ManifestHead
    shards: tuple[str, ...]
    features: StagedWriter
    quarantine: StagedWriter
    on_features: OnFile | None
    known: str
    progress: str
    total: int

    @property
    def warehouse(self) -> Warehouse:
        """Where everything lies."""
        return self.features.warehouse


@dataclass(frozen=True)
class Told:
    """What one task tells of itself, or all tasks of a job together.

    Attributes:
        features: the features files that it wrote.
        quarantine: the quarantine files.
        known: the scratch files of images whose content has features elsewhere, with `KNOWN_DDL`'s columns.
        known_images: the number of these.
        contents: SHA-256 in hex of each content that it put through the network.
        tally: what it counted.
    """

    features: tuple[StagedFile, ...] = ()
    quarantine: tuple[StagedFile, ...] = ()
    known: tuple[str, ...] = ()
    known_images: int = 0
    contents: frozenset[str] = frozenset()
    tally: Tally = field(default_factory=Tally)

    def __add__(self, other: "Told") -> "Told":
        return Told(
            self.features + other.features,
            self.quarantine + other.quarantine,
            self.known + other.known,
            self.known_images + other.known_images,
            self.contents | other.contents,
            self.tally + other.tally,
        )

    def to_json(self) -> str:
        """Return a text for `from_json`."""
        return json.dumps({**asdict(self), "contents": sorted(self.contents)})

    @classmethod
    def from_json(cls, text: str) -> "Told":
        """Return what a text of `to_json` tells."""
        fields = json.loads(text)
        return cls(
            tuple(StagedFile(**file) for file in fields["features"]),
            tuple(StagedFile(**file) for file in fields["quarantine"]),
            tuple(fields["known"]),
            fields["known_images"],
            frozenset(fields["contents"]),
            Tally(**fields["tally"]),
        )


def work_on(batches: Iterator[pa.RecordBatch], task: OutcomeTask) -> Iterator[pa.RecordBatch]:
    """Put the shards of one worker task, given by number, through the network, write their rows, and yield a row for each."""
    for batch in batches:
        for number in batch.column(0).to_pylist():
            told = _work_on_shard(task.shards[number], task)
            yield pa.RecordBatch.from_pydict({"told": [told.to_json()]})


def _work_on_shard(shard: str, task: OutcomeTask) -> Told:
    tally = Tally()
    report = _ProgressFile(task.warehouse, f"{task.progress}/{random_element()}.json", task.total)
    network = _network(task.head.backbone, task.warehouse)
    intake = Intake(task.head.pixel_limit, _known(task.head, task.warehouse))
    entries = read_part(task.warehouse.read(shard))
    outcomes = list(compute(fetch(entries), network, intake, tally, report))
    report.flush()
    return _write(sorted(outcomes, key=lambda outcome: outcome.entry.image_uri), task, tally)


def _write(outcomes: list[Outcome], task: OutcomeTask, tally: Tally) -> Told:
    good = [outcome for outcome in outcomes if isinstance(outcome, Good)]
    bad = [outcome for outcome in outcomes if isinstance(outcome, Bad)]
    known = [outcome for outcome in outcomes if isinstance(outcome, Known)]
    return Told(
        _features(good, task),
        _quarantine(bad, task),
        _scratch(known, task),
        len(known),
        frozenset(outcome.content_sha256 for outcome in good if outcome.is_network_run),
        tally,
    )


def _features(good: list[Good], task: OutcomeTask) -> tuple[StagedFile, ...]:
    if not good:
        return ()
    digest = task.head.digest
    rows = pa.Table.from_pylist([_good_row(outcome, digest) for outcome in good])
    file = task.features.write(rows)
    if task.on_features is not None:
        task.on_features(rows, file.path)
    return (file,)


def _quarantine(bad: list[Bad], task: OutcomeTask) -> tuple[StagedFile, ...]:
    if not bad:
        return ()
    digest = task.head.digest
    return (task.quarantine.write(pa.Table.from_pylist([_bad_row(outcome, digest) for outcome in bad])),)


def _scratch(known: list[Known], task: OutcomeTask) -> tuple[str, ...]:
    if not known:
        return ()
    path, packed = f"{task.known}/{random_element()}.parquet", io.BytesIO()
    rows = [_entry_row(outcome.entry) | {"content_sha256": outcome.content_sha256} for outcome in known]
    pq.write_table(pa.Table.from_pylist(rows, _KNOWN_SCHEMA), packed)
    task.warehouse.create(path, packed.getvalue())
    return (path,)


def _entry_row(entry: Entry) -> dict[str, Any]:
    return {
        "image_uri": entry.image_uri,
        "etag": entry.etag,
        "size_bytes": entry.size_bytes,
        "uploaded_at": datetime.fromisoformat(entry.uploaded_at),
        "label": entry.label,
    }


def _good_row(outcome: Good, manifest_digest: str) -> dict[str, Any]:
    return _entry_row(outcome.entry) | {
        "content_sha256": outcome.content_sha256,
        "width": outcome.width,
        "height": outcome.height,
        "features": outcome.features.tobytes(),
        "manifest_digest": manifest_digest,
        "computed_in": manifest_digest,
        "jobs_version": __version__,
    }


def _bad_row(outcome: Bad, manifest_digest: str) -> dict[str, Any]:
    return _entry_row(outcome.entry) | {
        "content_sha256": outcome.content_sha256,
        "reason": outcome.reason.value,
        "message": outcome.message,
        "manifest_digest": manifest_digest,
        "jobs_version": __version__,
    }


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
