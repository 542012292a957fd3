"""Which batch versions exist: a batch version exists when its `runs` row does."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES, QUARANTINE, RUNS
from orchard_jobs.contract.jobs import BatchVersion

from orchard.table_log import Snapshot
from orchard.tables import Change, Standing, Tables, number_in

_COLUMNS = ("batch_id", "manifest_digest", "version", "features_version")


@dataclass(frozen=True)
class PublishedVersion:
    """A batch's current version, as its newest `runs` row names it."""

    batch_id: str
    manifest_digest: str
    number: int
    features_version: int


def key_of(scope: str, batch_id: str) -> str:
    """Return the key of a batch in the commit rule; the scope is a backbone's id or a model's."""
    return f"{scope}/{batch_id}"


def current_version(tables: Tables, backbone: str, batch_id: str) -> PublishedVersion | None:
    """Return a batch's current version, or None when it was never published."""
    found = list(_newest(tables, backbone=backbone, batch_id=batch_id))
    return found[0] if found else None


def current_versions(tables: Tables, backbone: str) -> tuple[PublishedVersion, ...]:
    """Return the current version of every published batch of a backbone, sorted by batch."""
    return tuple(_newest(tables, backbone=backbone))


def _newest(tables: Tables, **partition: str) -> Iterator[PublishedVersion]:
    newest: dict[str, PublishedVersion] = {}
    for row in tables.rows(RUNS, _COLUMNS, **partition):
        version = PublishedVersion(*(row[name] for name in _COLUMNS))
        held = newest.get(version.batch_id)
        if held is None or held.number < version.number:
            newest[version.batch_id] = version
    for batch_id in sorted(newest):
        yield newest[batch_id]


def highest_number(tables: Tables, backbone: str, batch_id: str, model_id: str | None) -> int:
    """Return the highest batch version number that any table holds for a batch; 0 when none does."""
    key = key_of(backbone, batch_id)
    numbers = [number_in(tables.load(table), key) for table in (QUARANTINE, FEATURES, RUNS)]
    if model_id is not None:
        numbers.append(number_in(tables.load(PCA_FEATURES), key_of(model_id, batch_id)))
    return max(numbers)


def readable_versions(tables: Tables, backbone: str) -> tuple[BatchVersion, ...]:
    """Return every batch's current version with its feature files, sorted by batch.

    Where `features` already holds a version without a `runs` row (it is being published, or was cut off), the files are those
    of the table version that the `runs` row names.
    """
    versions = current_versions(tables, backbone)
    newest = tables.load(FEATURES)
    files = _files_by_batch(newest, backbone)
    found = []
    for version in versions:
        own = files.get(version.batch_id, [])
        change = Change(key_of(backbone, version.batch_id), version.number, version.manifest_digest)
        if change.standing(newest) is not Standing.DONE:
            own = _files_by_batch(tables.load(FEATURES, version.features_version), backbone).get(version.batch_id, [])
        found.append(BatchVersion(version.batch_id, version.manifest_digest, version.number, tuple(own)))
    return tuple(found)


def _files_by_batch(snapshot: Snapshot, backbone: str) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for file in snapshot.files(backbone=backbone):
        files.setdefault(file.partition["batch_id"], []).append(file.path)
    return files
