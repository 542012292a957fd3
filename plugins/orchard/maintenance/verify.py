"""Find what is lost or damaged: the tables' logs, every file that they name, and the exported backbones.

It may run beside other runs. What they replace or clean up is no damage, so a suspect is looked at again.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from orchard_jobs.contract.columns import TABLES, Table
from orchard_jobs.contract.digests import sha256_in
from orchard_jobs.contract.layout import NETWORKS, BackbonePath, ModelPath, StagedPath, parse, table_path
from orchard_jobs.errors import AuditError, DamagedFileError
from orchard_jobs.parquet import read_parquet

from orchard.outcomes import Done, Outcome, use_case
from orchard.tables.checksums import record_checksums, recorded
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile
from orchard.tables.log_files import LogFiles

_FILES_AT_ONCE = 8
_ABSENT = "is not there"
_OTHER = "does not match its recorded SHA-256"


@dataclass(frozen=True, order=True)
class Damage:
    """One file that is lost or damaged.

    Attributes:
        table: the table that needs it; empty for an exported backbone.
        batch_id: the batch whose rows it holds; empty where it holds no batch's.
        path: the file, relative to the warehouse.
        fault: what is wrong, in words that follow the file's name.
        partition: the values of the table's partition columns; none for a file of the log.
    """

    table: str
    batch_id: str
    path: str
    fault: str
    partition: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """All damage, sorted by table, batch and file; and how many tables and files were there to be looked at."""

    damage: tuple[Damage, ...]
    tables: int
    files: int


def verify(tables: Tables, *, is_deep: bool) -> tuple[Damage, ...]:
    """Return all damage that `look` finds."""
    return look(tables, is_deep=is_deep).damage


def look(tables: Tables, *, is_deep: bool) -> Verified:
    """Return all damage, and what was looked at.

    Args:
        tables: the tables; one that is not there is damage, unless it is new in this release.
        is_deep: read every file and compare its SHA-256 with the recorded one. Without it only what a listing shows is judged:
            existence, size, and that the logs can be read. A file of which nothing is recorded must decode, and is recorded.
    """
    files = _Files(tables, is_deep)
    found = sorted([*files.of_backbones(), *(damage for table in TABLES for damage in files.of_table(table))])
    record_checksums(tables.warehouse, files.unrecorded)
    present = sum(bool(LogFiles.of(tables.warehouse, table).paths) for table in TABLES)
    return Verified(tuple(found), present, len(files.seen))


def log_faults(tables: Tables) -> Iterator[tuple[Table, list[tuple[str, str]]]]:
    """Yield each table with (path, fault) of each file of its log that a deep look finds lost or damaged; sound tables are not
    named."""
    files = _Files(tables, is_deep=True)
    for table in TABLES:
        if faults := files.log_faults(table):
            yield table, faults


@use_case
def verify_on_schedule(tables: Tables) -> Outcome[int]:
    """Verify deeply; the value is the number of tables.

    Raises:
        AuditError: something is lost or damaged; the error names all of it.
    """
    found = verify(tables, is_deep=True)
    if found:
        lines = "".join(f"\n{damage.path} {damage.fault}" for damage in found)
        raise AuditError(f"damaged files: {len(found)}: `orchard repair --dry-run` says what a repair does{lines}")
    return Done(len(TABLES))


@dataclass(frozen=True)
class _Files:
    """The judgement of files, one by one.

    `unrecorded` collects the SHA-256 of those that are judged for the first time, `seen` the paths of all.
    """

    tables: Tables
    is_deep: bool
    unrecorded: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    @cached_property
    def _recorded(self) -> dict[str, frozenset[str]]:
        return recorded(self.tables.warehouse)

    def _is_recorded(self, table: Table) -> bool:
        """Tell whether an earlier look saw a file of a table."""
        return any(path.startswith(table_path(table, "")) for path in self._recorded)

    def of_table(self, table: Table) -> Iterator[Damage]:
        faults = self.log_faults(table)
        yield from (Damage(table.name, "", path, fault) for path, fault in faults)
        if faults:
            return
        sizes = dict(self.tables.warehouse.list(table.name))
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            named = self.tables.load(table).files()
            self.seen.update(file.path for file in named)
            suspects = [
                file for file, fault in zip(named, pool.map(lambda f: self._fault(f, sizes), named), strict=True) if fault
            ]
        yield from self._still_damaged(table, suspects)

    def of_backbones(self) -> Iterator[Damage]:
        """Yield the exported backbones that do not fit the SHA-256 beside them; an export without one is not judged."""
        warehouse = self.tables.warehouse
        for path, _ in warehouse.list(NETWORKS) if self.is_deep else ():
            known = parse(path)
            if isinstance(known, BackbonePath) and known == BackbonePath(known.backbone):
                self.seen.add(path)
                expected = warehouse.read_if_there(str(BackbonePath(known.backbone, "sha256")))
                if expected is not None and expected.strip() != warehouse.sha256(path).encode():
                    yield Damage("", "", path, _OTHER)

    def _still_damaged(self, table: Table, suspects: Iterable[TableFile]) -> Iterator[Damage]:
        """Yield the suspects that the table still names and that are still damaged."""
        wanted = {file.path for file in suspects}
        for file in self.tables.load(table).files() if wanted else ():
            if file.path in wanted and (fault := self._fault(file, {})):
                partition = tuple(file.partition[name] for name in table.partition_by)
                yield Damage(table.name, file.partition.get("batch_id", ""), file.path, fault, partition)

    def _fault(self, file: TableFile, sizes: dict[str, int]) -> str | None:
        size_bytes = sizes.get(file.path)
        if size_bytes is None:  # it may be younger than the listing
            size_bytes = self.tables.warehouse.size(file.path)
        if size_bytes is None:
            return _ABSENT
        if size_bytes != file.size_bytes:
            return f"has {size_bytes} bytes, not {file.size_bytes}"
        return self._content_fault(file.path) if self.is_deep else None

    def _content_fault(self, path: str) -> str | None:
        try:
            sha256 = self.tables.warehouse.sha256(path)
        except FileNotFoundError:
            return _ABSENT
        named = sha256_in(path)
        expected = self._recorded.get(path) if named is None else {named}
        if expected is None:
            return self._first_fault(path, sha256)
        return None if sha256 in expected else _OTHER

    def _first_fault(self, path: str, sha256: str) -> str | None:
        if path.endswith(".parquet"):
            try:
                read_parquet(self.tables.warehouse, path)
            except DamagedFileError as error:
                return error.fault
        self.unrecorded[path] = sha256
        return None

    def log_faults(self, table: Table) -> list[tuple[str, str]]:
        """Return the faults of a table's log; a log that grows while it is listed is listed again."""
        if self.tables.is_yet_to_come(table) and not self._is_recorded(table):
            return []
        warehouse = self.tables.warehouse
        found = list(LogFiles.of(warehouse, table).faults())
        if found:
            again = set(LogFiles.of(warehouse, table).faults())
            found = [fault for fault in found if fault in again]
        known = self._recorded
        log = LogFiles.of(warehouse, table)  # younger than what is recorded
        found, paths = found or list(log.lost_end(known)), log.paths
        self.seen.update(paths)
        if found or not self.is_deep:
            return found
        contents = ((path, self._content_fault(path)) for path in paths)
        # Delta itself removes old files of a log.
        found = [(path, fault) for path, fault in contents if fault is not None and fault != _ABSENT]
        return found or [(max(paths), fault) for fault in self._misnamed(table)]

    def _misnamed(self, table: Table) -> list[str]:
        """Return a fault of the log for each file that it names and no run can have written: a byte of the log was changed."""
        named = self.tables.load(table).files()
        return [f"names {file.path}, which no run can have written" for file in named if not _is_of(table, file)]


def _is_of(table: Table, file: TableFile) -> bool:
    known = parse(file.path)
    if isinstance(known, StagedPath):
        return known.table == table and known.partition == tuple(file.partition.get(name) for name in table.partition_by)
    return isinstance(known, ModelPath) and known.table == table.name
