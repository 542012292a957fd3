"""The worker tasks of featurize: a manifest's entries in, features and quarantine files out.

A task writes its files as soon as the last of its images is through the backbone.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import pyarrow as pa

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import PROGRESS_SECONDS, Progress, StagedFile
from orchard_jobs.contract.layout import manifest_path, random_element
from orchard_jobs.contract.manifest import ManifestHead, read_known, read_part, write_entries
from orchard_jobs.images import guarded
from orchard_jobs.images.compute import Bad, Good, ImageResult, InputRules, Known, Tally, compute
from orchard_jobs.images.loaded_backbone import LoadedBackbone, load_backbone
from orchard_jobs.images.sources import Fetched, FetchLimits, fetch
from orchard_jobs.stages.copied_rows import ROWS_PER_FILE, entry_columns
from orchard_jobs.stages.staging import OwnPaths, VersionWriter, lists
from orchard_jobs.storage import Warehouse


@dataclass(frozen=True)
class FeaturizeTask:
    """What every worker task of a job is given.

    Attributes:
        head: the manifest's head.
        features: writes features files.
        quarantine: writes quarantine files.
        paths: where scratch files and running counts go.
        total: the images that all tasks compute.
    """

    head: ManifestHead
    features: VersionWriter
    quarantine: VersionWriter
    paths: OwnPaths
    total: int

    @property
    def warehouse(self) -> Warehouse:
        """Where everything lies."""
        return self.features.warehouse

    @property
    def fetch_limits(self) -> FetchLimits:
        """How objects are fetched, and which are not."""
        return FetchLimits(object_bytes=self.head.object_limit)

    def in_warehouse(self, warehouse: Warehouse) -> "FeaturizeTask":
        """Return the task with all that it reads and writes in another warehouse."""
        return replace(self, features=self.features.in_warehouse(warehouse), quarantine=self.quarantine.in_warehouse(warehouse))


@dataclass(frozen=True)
class TaskResult:
    """What one worker task did, or all tasks of a job together.

    Attributes:
        features: the features files that it wrote.
        quarantine: the quarantine files.
        known: the scratch files of entries whose content has features elsewhere, now with that content.
        contents: SHA-256 in hex of each content that it put through the backbone.
        tally: what it counted.
    """

    features: tuple[StagedFile, ...] = ()
    quarantine: tuple[StagedFile, ...] = ()
    known: tuple[str, ...] = ()
    contents: frozenset[str] = frozenset()
    tally: Tally = field(default_factory=Tally)

    def __add__(self, other: "TaskResult") -> "TaskResult":
        return TaskResult(
            self.features + other.features,
            self.quarantine + other.quarantine,
            self.known + other.known,
            self.contents | other.contents,
            self.tally + other.tally,
        )

    def to_json(self) -> str:
        """Return a text for `from_json`."""
        return json.dumps({**asdict(self), "contents": sorted(self.contents)})

    @classmethod
    def from_json(cls, text: str) -> "TaskResult":
        """Return the result of a text that `to_json` wrote."""
        fields = json.loads(text)
        return cls(
            tuple(StagedFile(**file) for file in fields["features"]),
            tuple(StagedFile(**file) for file in fields["quarantine"]),
            tuple(fields["known"]),
            frozenset(fields["contents"]),
            Tally(**fields["tally"]),
        )


def featurize_shard(index: int, task: FeaturizeTask, shards: tuple[str, ...]) -> str:
    """Put the entries of a shard's file through the backbone, write their rows, and return the result as JSON."""
    entries = read_part(task.warehouse.read(shards[index]))
    return sum(featurize_images(fetch(entries, task.fetch_limits), task), TaskResult()).to_json()


def featurize_images(source: Iterable[Fetched], task: FeaturizeTask) -> Iterator[TaskResult]:
    """Put the images of a source through the backbone and write their rows; yield a result after each file."""
    guarded.start()
    tally = Tally()
    progress = ProgressFile.of(task)
    backbone = _loaded_backbone(task.head.backbone, task.warehouse)
    rules = InputRules(task.head.pixel_limit, _known(task.head, task.warehouse))
    outcomes = compute(source, backbone, rules, tally, progress)
    # A shard may be larger: images that may be equal are in one, however many they are.
    while some := list(islice(outcomes, ROWS_PER_FILE)):
        yield _write(some, task)
    progress.flush()
    yield TaskResult(tally=tally)


def _write(outcomes: list[ImageResult], task: FeaturizeTask) -> TaskResult:
    good = [outcome for outcome in outcomes if isinstance(outcome, Good)]
    bad = [outcome for outcome in outcomes if isinstance(outcome, Bad)]
    known = [outcome for outcome in outcomes if isinstance(outcome, Known)]
    return TaskResult(
        task.features.write(_good_rows(good, task.head.digest)),
        task.quarantine.write(_bad_rows(bad)),
        _scratch(known, task),
        frozenset(outcome.content_sha256 for outcome in good if outcome.is_backbone_run),
    )


def _good_rows(good: list[Good], manifest_digest: str) -> pa.Table:
    if not good:
        return pa.table({})
    columns = entry_columns([outcome.entry for outcome in good]) | {
        "content_sha256": pa.array([outcome.content_sha256 for outcome in good], pa.string()),
        "width": pa.array([outcome.width for outcome in good], pa.int32()),
        "height": pa.array([outcome.height for outcome in good], pa.int32()),
        "features": lists(np.stack([outcome.features for outcome in good])),
        "computed_in": pa.repeat(manifest_digest, len(good)),
    }
    return pa.table(columns)


def _bad_rows(bad: list[Bad]) -> pa.Table:
    columns = entry_columns([outcome.entry for outcome in bad]) | {
        "content_sha256": pa.array([outcome.content_sha256 for outcome in bad], pa.string()),
        "reason": pa.array([outcome.reason.value for outcome in bad], pa.string()),
        "message": pa.array([outcome.message for outcome in bad], pa.string()),
    }
    return pa.table(columns)


def _scratch(known: list[Known], task: FeaturizeTask) -> tuple[str, ...]:
    if not known:
        return ()
    path = task.paths.scratch("known", f"{random_element()}.jsonl.gz")
    entries = [replace(outcome.entry, action="reuse", content_sha256=outcome.content_sha256) for outcome in known]
    task.warehouse.create(path, write_entries(entries))
    return (path,)


_loaded: dict[str, LoadedBackbone] = {}


def _loaded_backbone(backbone: Backbone, warehouse: Warehouse) -> LoadedBackbone:
    """Return the backbone, loaded once a worker process: Spark keeps the process for the next task."""
    if backbone.id not in _loaded:
        _loaded[backbone.id] = load_backbone(backbone, warehouse)
    return _loaded[backbone.id]


def _known(head: ManifestHead, warehouse: Warehouse) -> frozenset[str]:
    return frozenset() if head.known is None else _read_known(warehouse, manifest_path(head.digest, head.known.name))


@lru_cache(maxsize=1)
def _read_known(warehouse: Warehouse, path: str) -> frozenset[str]:
    """Return the known contents of a manifest, read once a worker process."""
    return read_known(warehouse.read(path))


class ProgressFile:
    """The running count of one process's images, written at most every two seconds. Never data."""

    def __init__(self, warehouse: Warehouse, path: str, total: int) -> None:
        self._warehouse, self._path, self._total = warehouse, path, total
        self._done = 0
        self._written_at = 0.0

    @classmethod
    def of(cls, task: FeaturizeTask) -> "ProgressFile":
        """Return a fresh one."""
        return cls(task.warehouse, task.paths.new_progress(), task.total)

    def __call__(self, done: int) -> None:
        self._done = done
        if time.monotonic() - self._written_at >= PROGRESS_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the count."""
        self._written_at = time.monotonic()
        self._warehouse.rewrite(self._path, json.dumps(asdict(Progress(self._done, self._total))).encode())
