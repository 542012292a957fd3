"""The logs of tables in memory: what delta-rs does behind `orchard.tables.delta_log`, as a differential test proves."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchard.tables.delta_log import ConflictError, Mode, Snapshot, TableFile
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.errors import NoTableError


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
    """Tables as lists of versions; a commit from an old version is refused, as Delta does.

    Attributes:
        now: the time by which removals are stamped.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self._versions: dict[str, list[MemorySnapshot]] = {}
        self._removed: dict[str, dict[str, datetime]] = {}

    def create(self, table: Table) -> None:
        self._versions.setdefault(table.name, [MemorySnapshot(table, 0)])

    def load(self, table: Table, version: int | None = None) -> Snapshot:
        if table.name not in self._versions:
            raise NoTableError(f"{table.name} is not a table")
        return self._versions[table.name][-1 if version is None else version]

    def commit(
        self, snapshot: Snapshot, table: Table, staged: Sequence[StagedPartition], transactions: Mapping[str, int], mode: Mode
    ) -> None:
        newest = self._versions[table.name][-1]
        if snapshot.version != newest.version:
            raise ConflictError(f"{table.name} is at {newest.version}, not at {snapshot.version}")
        parts = [(dict(zip(table.partition_by, part.partition, strict=True)), part.files) for part in staged]
        replaced = [partition for partition, _ in parts] if mode == "overwrite" else []
        kept = [file for file in newest.held if file.partition not in replaced]
        added = [TableFile(one.path, one.size_bytes, one.rows, partition) for partition, files in parts for one in files]
        gone = {file.path for file in newest.held if file.partition in replaced}
        self._removed.setdefault(table.name, {}).update(dict.fromkeys(gone, self.now()))
        held = tuple(sorted([*kept, *added], key=lambda file: file.path))
        self._versions[table.name].append(
            MemorySnapshot(table, newest.version + 1, held, {**newest.transactions, **transactions})
        )

    def swap(
        self,
        snapshot: Snapshot,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition],
        transactions: Mapping[str, int],
    ) -> None:
        raise NotImplementedError("nothing is repaired in memory")

    def replaced(self, table: Table) -> Mapping[str, datetime]:
        return dict(self._removed.get(table.name, {}))
