"""Which batch versions exist, and which files are theirs: a batch version exists when its `runs` row does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger

from orchard.tables.commit_rule import Change, CommitState, Tables, version_number_in
from orchard.tables.delta_log import Snapshot, TableFile

log = escaping_logger(__name__)
_COLUMNS = ("batch_id", "manifest_digest", "version", "features_version", "quarantine_version")


@dataclass(frozen=True)
class CurrentVersion:
    """A batch's current version, as its newest `runs` row names it."""

    batch_id: str
    manifest_digest: str
    number: int
    features_version: int
    quarantine_version: int

    def change(self, scope: str) -> Change:
        """Return the change that made this version, under a backbone's or a model's key."""
        return Change(version_key(scope, self.batch_id), self.number, self.manifest_digest)


def version_key(scope: str, batch_id: str) -> str:
    """Return the key of a batch in the commit rule; the scope is a backbone's id or a model's."""
    return f"{scope}/{batch_id}"


@dataclass(frozen=True)
class BatchVersions:
    """The current versions of a backbone's batches and their files, at one moment.

    `runs` is loaded before the tables that are committed before it, so what is committed meanwhile shows as a version that is
    not whole, never as a mixture.

    Attributes:
        unreadable: the batches of which a file of `runs` is lost or damaged; they have no current version here.
    """

    tables: Tables
    backbone: str
    current: Mapping[str, CurrentVersion]
    runs: Snapshot
    features: Snapshot
    quarantine: Snapshot
    unreadable: Mapping[str, DamagedFileError] = field(default_factory=dict)

    @classmethod
    def load(cls, tables: Tables, backbone: str, batch_id: str | None = None) -> "BatchVersions":
        """Return the versions of every batch, or of one."""
        runs = tables.load(RUNS)
        wanted = {"backbone": backbone} | ({"batch_id": batch_id} if batch_id else {})
        current: dict[str, CurrentVersion] = {}
        unreadable: dict[str, DamagedFileError] = {}
        for file in runs.files(**wanted):
            try:
                found = [CurrentVersion(*(row[name] for name in _COLUMNS)) for row in tables.rows_of([file], _COLUMNS)]
            except DamagedFileError as error:
                unreadable[file.partition["batch_id"]] = error
                continue
            for version in found:
                if version.batch_id not in current or current[version.batch_id].number < version.number:
                    current[version.batch_id] = version
        for batch_id, fault in unreadable.items():
            log.warning("batch %s is ignored: %s", batch_id, fault)
            current.pop(batch_id, None)
        # The reverse of the commits' order.
        features = tables.load(FEATURES)
        return cls(tables, backbone, dict(sorted(current.items())), runs, features, tables.load(QUARANTINE), unreadable)

    def check_readable(self, *batch_ids: str) -> None:
        """Raise DamagedFileError if the current version of one of some batches is unknown; without names, of any batch."""
        for batch_id in batch_ids or self.unreadable:
            if batch_id in self.unreadable:
                raise self.unreadable[batch_id]

    def highest_number(self, batch_id: str) -> int:
        """Return the highest batch version number that any table holds; 0 when none does."""
        return max(self._numbers(batch_id))

    def is_complete(self, batch_id: str) -> bool:
        """Tell whether every table holds the batch's current version: none was left half-way, and none is being published."""
        return len(set(self._numbers(batch_id))) == 1

    def is_half_way(self, batch_id: str, manifest_digest: str) -> bool:
        """Tell whether a manifest's version is the newest that some table holds, and has no `runs` row."""
        change = Change(version_key(self.backbone, batch_id), self.highest_number(batch_id), manifest_digest)
        snapshots = (self.quarantine, self.features)
        return not self.is_complete(batch_id) and any(change.state_in(snapshot) is CommitState.DONE for snapshot in snapshots)

    @property
    def half_way(self) -> tuple[str, ...]:
        """The batches with rows of a version that is not complete, sorted."""
        batches = {*self.current, *self._features_by_batch, *self._quarantine_by_batch}
        return tuple(sorted(batch_id for batch_id in batches if not self.is_complete(batch_id)))

    def _numbers(self, batch_id: str) -> list[int]:
        key = version_key(self.backbone, batch_id)
        return [version_number_in(snapshot, key) for snapshot in (self.runs, self.features, self.quarantine)]

    def features_files(self, batch_id: str) -> Sequence[TableFile]:
        """Return the files that hold the good rows of a batch's current version."""
        version = self.current.get(batch_id)
        if version is None:
            return ()
        if version.change(self.backbone).state_in(self.features) is CommitState.DONE:
            return self._features_by_batch.get(batch_id, ())
        return self._files_at(FEATURES, version.features_version, batch_id)

    def quarantine_files(self, batch_id: str) -> Sequence[TableFile]:
        """Return the files that hold the quarantine rows of a batch's current version."""
        version = self.current.get(batch_id)
        if version is None:
            return ()
        if version.change(self.backbone).state_in(self.quarantine) is CommitState.DONE:
            return self._quarantine_by_batch.get(batch_id, ())
        return self._files_at(QUARANTINE, version.quarantine_version, batch_id)

    def _files_at(self, table: Table, version: int, batch_id: str) -> Sequence[TableFile]:
        """Where the newest table version is ahead of `runs`: the files of the one that the `runs` row names."""
        return self.tables.load(table, version).files(backbone=self.backbone, batch_id=batch_id)

    def readable(self) -> tuple[BatchVersion, ...]:
        """Return every batch's current version with its feature files, sorted by batch."""
        return tuple(
            BatchVersion(
                version.batch_id,
                version.manifest_digest,
                version.number,
                tuple(file.path for file in self.features_files(version.batch_id)),
            )
            for version in self.current.values()
        )

    def is_retired(self, batch_id: str) -> bool:
        """Tell whether a batch was published, and removed again when its backbone was retired."""
        is_published = batch_id in self.current or batch_id in self.unreadable
        return not is_published and self.is_complete(batch_id) and self.highest_number(batch_id) > 0

    @cached_property
    def _features_by_batch(self) -> Mapping[str, Sequence[TableFile]]:
        return _by_batch(self.features, self.backbone)

    @cached_property
    def _quarantine_by_batch(self) -> Mapping[str, Sequence[TableFile]]:
        return _by_batch(self.quarantine, self.backbone)


def _by_batch(snapshot: Snapshot, backbone: str) -> Mapping[str, Sequence[TableFile]]:
    found: dict[str, list[TableFile]] = {}
    for file in snapshot.files(backbone=backbone):
        found.setdefault(file.partition["batch_id"], []).append(file)
    return found


def current_versions(tables: Tables, backbone: str) -> tuple[CurrentVersion, ...]:
    """Return the current version of every published batch of a backbone, sorted by batch."""
    return tuple(BatchVersions.load(tables, backbone).current.values())


def readable_versions(tables: Tables, backbone: str) -> tuple[BatchVersion, ...]:
    """Return every batch's current version with its feature files, sorted by batch."""
    return BatchVersions.load(tables, backbone).readable()
