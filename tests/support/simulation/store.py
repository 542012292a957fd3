"""The store of a history: a warehouse and its tables' logs, whose every call can be interrupted and can fail."""

import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from obstore.exceptions import NotFoundError
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import DeltaLog, Mode, Snapshot, TableLog
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.storage import StoredFile, Warehouse

from support.simulation.memory_log import MemoryLog
from support.simulation.store_calls import StoreCalls

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _MemoryWarehouse(Warehouse):
    held: dict[str, bytes] = field(default_factory=dict, compare=False)

    @cached_property
    def _store(self) -> Any:
        raise AssertionError("a call of the warehouse that is not made in memory: add it to _MemoryWarehouse")

    def read_if_there(self, path: str) -> bytes | None:
        return self.held.get(path)

    def create(self, path: str, content: bytes) -> bool:
        if path in self.held:
            return False
        self.held[path] = content
        return True

    def rewrite(self, path: str, content: bytes) -> None:
        self.held[path] = content

    def open(self, path: str) -> "_MemoryFile":
        return _MemoryFile(self.read(path))

    def open_if_there(self, path: str) -> Any:
        content = self.read_if_there(path)
        return None if content is None else _MemoryFile(content)

    def size(self, path: str) -> int | None:
        return len(self.held[path]) if path in self.held else None

    def files(self, folder: str) -> Iterator[StoredFile]:
        # How old a file is is asked of SimulatedWarehouse alone.
        return (StoredFile(path, len(found), _LONG_AGO) for path, found in self.held.items() if path.startswith(f"{folder}/"))

    def delete(self, path: str) -> None:
        self.held.pop(path, None)

    def sha256(self, path: str) -> str:
        if path not in self.held:
            raise NotFoundError(path)
        return hashlib.sha256(self.held[path]).hexdigest()


class _MemoryFile(io.BytesIO):
    """A file that is read from memory: no turn may change within pyarrow."""

    @property
    def size_bytes(self) -> int:
        return len(self.getbuffer())


@dataclass(frozen=True)
class SimulatedWarehouse(Warehouse):
    """Another warehouse, each of whose calls is one of the store's; its files are as old as the simulated clock says.

    Attributes:
        calls: where the calls pass.
        inner: the other warehouse.
        written: when each file was last written.
        created: the files that were written where none was: they stay as they are.
        journal: what was made, and what removed, in order, and when.
    """

    calls: StoreCalls = field(default_factory=StoreCalls, compare=False)
    inner: Warehouse = field(default_factory=lambda: _MemoryWarehouse("memory:"), compare=False)
    written: dict[str, StoredFile] = field(default_factory=dict, compare=False)
    created: set[str] = field(default_factory=set, compare=False)
    journal: list[tuple[datetime, StoredFile, bool]] = field(default_factory=list, compare=False)

    @cached_property
    def _store(self) -> Any:
        raise AssertionError("a call of the warehouse that the simulation does not know: add it to SimulatedWarehouse")

    def read_if_there(self, path: str) -> bytes | None:
        return self.calls.read(f"read {path}", lambda: self.inner.read_if_there(path), _cut)

    def create(self, path: str, content: bytes) -> bool:
        def act() -> bool:
            is_new = self.inner.create(path, content)
            if is_new:
                self.created.add(path)
                self._note(path, content)
            return is_new

        return self.calls.write(f"create {path}", act)

    def rewrite(self, path: str, content: bytes) -> None:
        def act() -> None:
            assert path not in self.created or self.inner.read(path) == content, f"{path} is written twice"
            self.inner.rewrite(path, content)
            self._note(path, content)

        self.calls.write(f"rewrite {path}", act)

    def open(self, path: str) -> Any:
        return _MemoryFile(self.calls.read(f"open {path}", lambda: self.inner.read(path), _cut_file))

    def open_if_there(self, path: str) -> Any:
        content = self.calls.read(f"open {path}", lambda: self.inner.read_if_there(path), _cut)
        return None if content is None else _MemoryFile(content)

    def size(self, path: str) -> int | None:
        return self.calls.read(f"size {path}", lambda: self.inner.size(path))

    def stat(self, path: str) -> StoredFile | None:
        return self.calls.read(f"stat {path}", lambda: self.written.get(path))

    def files(self, folder: str) -> Iterator[StoredFile]:
        found = self.calls.list(f"list {folder}", lambda: dict(self.written), self._as_of)
        return iter([file for path, file in found.items() if path.startswith(f"{folder}/")])

    def delete(self, path: str) -> None:
        def act() -> None:
            self.inner.delete(path)
            self.created.discard(path)
            if (file := self.written.pop(path, None)) is not None:
                self.journal.append((self.calls.clock.of_store, file, False))

        self.calls.write(f"delete {path}", act)

    def folders(self, folder: str) -> tuple[str, ...]:
        names = (file.path.removeprefix(f"{folder}/").split("/") for file in self.files(folder))
        return tuple(sorted({first for first, *rest in names if rest}))

    def sha256(self, path: str) -> str:
        return self.calls.read(f"hash {path}", lambda: self.inner.sha256(path))

    def _note(self, path: str, content: bytes) -> None:
        file = StoredFile(path, len(content), self.calls.clock.of_store)
        if path not in self.written:
            self.journal.append((file.modified_at, file, True))
        self.written[path] = file

    def _as_of(self, moment: datetime) -> dict[str, StoredFile]:
        """Return the files as they were at a moment."""
        found = dict(self.written)
        for at, file, is_made in reversed(self.journal):
            if at <= moment:
                break
            if is_made:
                found.pop(file.path, None)
            else:
                found[file.path] = file
        return found


def _cut(content: bytes | None, share: float) -> bytes | None:
    return None if content is None else _cut_file(content, share)


def _cut_file(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


@dataclass(frozen=True)
class SimulatedLog:
    """Another log, each of whose calls is one of the store's.

    Attributes:
        log: the other log.
        calls: where the calls pass.
        commits: by table, when each version after the first was made.
    """

    log: TableLog
    calls: StoreCalls
    commits: dict[str, list[datetime]] = field(default_factory=dict)

    def create(self, table: Table) -> None:
        self.calls.write(f"create table {table.name}", lambda: self.log.create(table))

    def load(self, table: Table, version: int | None = None) -> Snapshot:
        if version is not None:
            return self.calls.read(f"load {table.name} {version}", lambda: self.log.load(table, version))
        found = self.calls.list(f"load {table.name}", lambda: self.log.load(table), lambda moment: self._as_of(table, moment))
        if self.calls.scheduler.current is not None:
            self.calls.scheduler.current.seen.setdefault(table.name, found)
        return found

    def _as_of(self, table: Table, moment: datetime) -> Snapshot:
        return self.log.load(table, sum(at <= moment for at in self.commits.get(table.name, ())))

    def commit(
        self, snapshot: Snapshot, table: Table, staged: Sequence[StagedPartition], transactions: Mapping[str, int], mode: Mode
    ) -> None:
        def act() -> None:
            self.log.commit(snapshot, table, staged, transactions, mode)
            self.commits.setdefault(table.name, []).append(self.calls.clock.of_store)

        # Asked again after its answer was lost, the log says that the version is taken: delta-rs calls that a conflict.
        self.calls.write(f"commit {table.name} {snapshot.version + 1} {dict(transactions)}", act)

    def swap(
        self,
        snapshot: Snapshot,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition],
        transactions: Mapping[str, int],
    ) -> None:
        self.calls.write(f"swap {table.name}", lambda: self.log.swap(snapshot, table, lost, staged, transactions))

    def replaced(self, table: Table) -> Mapping[str, datetime]:
        return self.calls.read(f"replaced {table.name}", lambda: self.log.replaced(table))


@dataclass(frozen=True)
class Storage:
    """Tables, where the calls of their store pass, and the same tables without these calls."""

    tables: Tables
    calls: StoreCalls
    calm: Tables

    @property
    def is_in_memory(self) -> bool:
        """Whether nothing of it is on a disk."""
        return isinstance(self.calm.warehouse, _MemoryWarehouse)

    @classmethod
    def of(cls, warehouse: Warehouse, make_log: Callable[[Warehouse, StoreCalls], TableLog]) -> "Storage":
        """Return the simulated tables of a warehouse; the first plan creates them."""
        calls = StoreCalls()
        log = make_log(warehouse, calls)
        tables = Tables(SimulatedWarehouse(warehouse.uri, calls, warehouse), SimulatedLog(log, calls))
        return cls(tables, calls, Tables(warehouse, log))


def in_memory() -> Storage:
    """Return a store in memory."""
    return Storage.of(_MemoryWarehouse("memory:"), lambda _, calls: MemoryLog(lambda: calls.clock.of_machine))


def on_disk(folder: Path) -> Storage:
    """Return a store of Delta tables in a folder."""
    return Storage.of(Warehouse(f"file://{folder}"), lambda warehouse, _: DeltaLog(warehouse))
