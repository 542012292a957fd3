"""Storage for histories: tables in memory behind the publish protocol, or real Delta tables; both can be killed at any write."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from obstore.store import MemoryStore
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import ConflictError, DeltaLog, Mode, Snapshot, TableFile, TableLog
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass
class Writes:
    """Counts writes, kills the writer when its last one is spent, and lets somebody in before each commit."""

    left: int | None = None
    before_commit: Callable[[], None] = lambda: None

    def spend(self) -> None:
        """Count one write."""
        if self.left is None:
            return
        if self.left == 0:
            raise Killed
        self.left -= 1


@dataclass(frozen=True)
class StoredFiles(Warehouse):
    """A warehouse whose writes are counted; in memory unless its URI is a file's."""

    writes: Writes = field(default_factory=Writes, compare=False)

    @cached_property
    def _store(self) -> Any:
        return MemoryStore() if self.uri.startswith("memory:") else Warehouse(self.uri)._store

    def create(self, path: str, content: bytes) -> bool:
        self.writes.spend()
        return super().create(path, content)

    def delete(self, path: str) -> None:
        self.writes.spend()
        super().delete(path)


@dataclass(frozen=True)
class MemorySnapshot:
    """A version of a table: its files and its transactions."""

    table: Table
    version: int
    held: tuple[TableFile, ...] = ()
    transactions: Mapping[str, int] = field(default_factory=dict)

    def transaction(self, name: str) -> int | None:
        return self.transactions.get(name)

    def files(self, **partition: str) -> list[TableFile]:
        return [file for file in self.held if all(file.partition[name] == value for name, value in partition.items())]


class MemoryLog:
    """Tables as lists of versions; a commit from an old version is refused, as Delta does."""

    def __init__(self) -> None:
        self._versions: dict[str, list[MemorySnapshot]] = {}
        self._replaced: dict[str, set[str]] = {}

    def create(self, table: Table) -> None:
        self._versions.setdefault(table.name, [MemorySnapshot(table, 0)])

    def load(self, table: Table, version: int | None = None) -> Snapshot:
        if table.name not in self._versions:
            raise JobError(f"{table.name} is not a table")
        return self._versions[table.name][-1 if version is None else version]

    def commit(
        self, snapshot: Snapshot, table: Table, staged: Sequence[StagedPartition], transactions: Mapping[str, int], mode: Mode
    ) -> None:
        versions = self._versions[table.name]
        if snapshot.version != versions[-1].version:
            raise ConflictError(f"{table.name} is at {versions[-1].version}, not at {snapshot.version}")
        replaced = [dict(zip(table.partition_by, part.partition, strict=True)) for part in staged] if mode == "overwrite" else []
        kept = [file for file in versions[-1].held if file.partition not in replaced]
        added = [
            TableFile(file.path, file.size_bytes, file.rows, dict(zip(table.partition_by, part.partition, strict=True)))
            for part in staged
            for file in part.files
        ]
        held = tuple(sorted([*kept, *added], key=lambda file: file.path))
        self._replaced.setdefault(table.name, set()).update(file.path for file in versions[-1].held if file not in kept)
        versions.append(MemorySnapshot(table, len(versions), held, {**versions[-1].transactions, **transactions}))

    def swap(
        self,
        snapshot: Snapshot,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition],
        transactions: Mapping[str, int],
    ) -> None:
        raise NotImplementedError("nothing is repaired in memory")

    def replaced(self, table: Table, for_at_least: timedelta) -> frozenset[str]:
        assert not for_at_least, "this log has no clock"
        return frozenset(self._replaced.get(table.name, ()))


@dataclass(frozen=True)
class WatchedLog:
    """Another log whose commits count as writes; somebody may come in between load and commit."""

    log: TableLog
    writes: Writes

    def create(self, table: Table) -> None:
        self.log.create(table)

    def load(self, table: Table, version: int | None = None) -> Snapshot:
        return self.log.load(table, version)

    def commit(
        self, snapshot: Snapshot, table: Table, staged: Sequence[StagedPartition], transactions: Mapping[str, int], mode: Mode
    ) -> None:
        self.writes.before_commit()
        self.writes.spend()
        self.log.commit(snapshot, table, staged, transactions, mode)

    def swap(
        self,
        snapshot: Snapshot,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition],
        transactions: Mapping[str, int],
    ) -> None:
        self.writes.before_commit()
        self.writes.spend()
        self.log.swap(snapshot, table, lost, staged, transactions)

    def replaced(self, table: Table, for_at_least: timedelta) -> frozenset[str]:
        return self.log.replaced(table, for_at_least)


@dataclass(frozen=True)
class Storage:
    """Tables with the counter of their writes."""

    tables: Tables
    writes: Writes


def in_memory() -> Storage:
    """Return a warehouse in memory; the first plan creates its tables."""
    writes = Writes()
    tables = Tables(StoredFiles("memory:", writes), WatchedLog(MemoryLog(), writes))
    return Storage(tables, writes)


def on_disk(folder: Path) -> Storage:
    """Return a warehouse of Delta tables in a folder; the first plan creates them."""
    writes = Writes()
    warehouse = StoredFiles(f"file://{folder}", writes)
    tables = Tables(warehouse, WatchedLog(DeltaLog(warehouse), writes))
    return Storage(tables, writes)
