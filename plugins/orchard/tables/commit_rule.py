"""The published tables: created empty, read, and changed under one commit rule.

Every commit carries two transactions for each key that it changes. `batch:<backbone>/<batch>` (in pca_features
`batch:<model>/<batch>`) has the batch version's number. `manifest:<the same>` has the first 60 bits of the manifest's digest.
With these a writer tells its own version from another writer's version of the same number without reading the log.
"""

import enum
import hashlib
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from orchard_jobs.contract.columns import TABLES, Table
from orchard_jobs.contract.digests import staged_name
from orchard_jobs.contract.jobs import StagedFile, StagedPartition
from orchard_jobs.contract.layout import random_element, staged_path
from orchard_jobs.errors import JobError, NoTableError
from orchard_jobs.parquet import open_parquet, pack
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

from orchard.tables.checksums import record_unnamed
from orchard.tables.delta_log import ConflictError, DeltaLog, Mode, Snapshot, TableFile, TableLog

COMMIT_TRIES = 20
# The digest of a change without rows: it takes back what a table holds under a key, or ends a backbone's batch.
NO_DIGEST = "0" * 64
_RETRY_SECONDS = 0.1


class CommitState(enum.Enum):
    """Whether a table already holds a change that a writer wants to commit."""

    BEHIND = "behind"
    """The table holds a lower number: commit."""
    DONE = "done"
    """The table holds exactly this change."""
    SUPERSEDED = "superseded"
    """The table holds a higher number, or another writer's change of the same number."""


@dataclass(frozen=True)
class Change:
    """What one commit does under one key.

    Attributes:
        key: what is versioned: `<backbone>/<batch>`, `<model>/<batch>`, a model, a backbone's promotions.
        number: the version's number under that key; 0 takes back what the table holds of it, whatever its number is.
        digest: 64 hex digits that tell this version from another writer's of the same number: the manifest's digest.
        partition: values of the table's partition columns.
        files: the staged files; none is an empty replacement.
    """

    key: str
    number: int
    digest: str
    partition: tuple[str, ...] = ()
    files: tuple[StagedFile, ...] = ()

    @property
    def transactions(self) -> dict[str, int]:
        """The transactions that name this change in the log."""
        return {_number_of(self.key): self.number, _manifest_of(self.key): _tag(self.digest)}

    def state_in(self, snapshot: Snapshot) -> CommitState:
        """Return whether a table's snapshot already holds this change."""
        held = version_number_in(snapshot, self.key)
        if self.number == 0:
            return CommitState.BEHIND if held else CommitState.DONE
        if held < self.number:
            return CommitState.BEHIND
        is_ours = held == self.number and snapshot.transaction(_manifest_of(self.key)) == _tag(self.digest)
        return CommitState.DONE if is_ours else CommitState.SUPERSEDED


def version_number_in(snapshot: Snapshot, key: str) -> int:
    """Return the number of the version that a snapshot holds under a key; 0 when it holds none."""
    return snapshot.transaction(_number_of(key)) or 0


def _number_of(key: str) -> str:
    return f"batch:{key}"


def _manifest_of(key: str) -> str:
    return f"manifest:{key}"


def _tag(digest: str) -> int:
    return int(digest[:15], 16)


@dataclass(frozen=True)
class NoVersion:
    """What stands for a table of this release in a warehouse of an earlier one: no row, and no version."""

    version: int = -1

    def transaction(self, name: str) -> int | None:
        """Return None: nothing was committed."""
        return None

    def files(self, **partition: str) -> list[TableFile]:
        """Return no files."""
        return []


@dataclass(frozen=True)
class Committed:
    """The table's version after a commit (or now, where nothing was left to do), and each change's state before it."""

    version: int
    states: tuple[CommitState, ...]


@dataclass(frozen=True)
class Tables:
    """The tables of one warehouse, and the log that says which files they hold."""

    warehouse: Warehouse
    log: TableLog

    @classmethod
    def at(cls, uri: str) -> "Tables":
        """Return the Delta tables of a warehouse's URI."""
        warehouse = Warehouse.at(uri)
        return cls(warehouse, DeltaLog(warehouse))

    def create_all(self) -> None:
        """Create every table that is not there, empty; two at once do no harm."""
        for table in TABLES:
            self.log.create(table)

    def load(self, table: Table, version: int | None = None) -> Snapshot:
        """Return the table's newest snapshot, or that of a version.

        A table that is new in this release is empty until a run creates it.

        Raises:
            NoTableError: the table was never created, or all of its log was lost.
        """
        try:
            return self.log.load(table, version)
        except NoTableError:
            if self.is_yet_to_come(table):
                return NoVersion()
            raise

    def is_yet_to_come(self, table: Table) -> bool:
        """Tell whether a table is new in this release, and no run of it has created it here: not a file of it is there."""
        return table.is_new and next(iter(self.warehouse.list(table.name)), None) is None

    def replaced(self) -> dict[str, datetime]:
        """Return when a commit took each file out of its table, for all that the logs still remember."""
        there = (table for table in TABLES if not self.is_yet_to_come(table))
        return {path: moment for table in there for path, moment in self.log.replaced(table).items()}

    def rows(self, table: Table, columns: Sequence[str] | None = None, **partition: str) -> Iterator[dict[str, Any]]:
        """Yield the newest rows of the named partition values as dicts, partition columns among them, file after file."""
        return self.rows_of(self.load(table).files(**partition), columns or table.column_names)

    def rows_of(self, files: Iterable[TableFile], columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of some files as dicts, partition columns among them, file after file.

        A named column that a file does not have is null: the file is of a release before that column.

        Raises:
            DamagedFileError: a file is lost or damaged.
        """
        for file in files:
            values = dict(file.partition)
            names = None if columns is None else [name for name in columns if name not in values]
            nulls: dict[str, Any] = dict.fromkeys(names or ())
            with open_parquet(self.warehouse, file.path) as opened:
                # Each row becomes Python objects here, so threads cost more than they save.
                for batch in opened.iter_batches(columns=names, use_threads=False):
                    for row in batch.to_pylist():
                        yield nulls | row | values

    def stage(self, table: Table, rows: Sequence[dict[str, Any]], partition: tuple[str, ...] = ()) -> StagedFile:
        """Write a few rows as one fresh file of a table that no log names yet."""
        content = pack(pa.Table.from_pylist(list(rows), arrow_schema(table)))
        sha256 = hashlib.sha256(content).hexdigest()
        path = staged_path(table, partition, None, random_element(), staged_name(sha256))
        self.warehouse.create(path, content)
        return StagedFile(path, len(content), len(rows), sha256)

    def commit(self, table: Table, changes: Sequence[Change], mode: Mode = "overwrite") -> Committed:
        """Commit the changes that the table is behind, in one commit, under the one rule.

        Before each try the table is loaded again. A change whose number is higher than the table's is committed. One that is
        there already is done. Any other is superseded, and not committed. A conflict does not show who won, so the table is
        loaded again and the rule is applied again.

        Args:
            table: the table.
            changes: what to commit, one for each key.
            mode: `overwrite` replaces each change's table partition; `append` adds its files.

        Raises:
            JobError: a staged file is gone or has another size, or 20 commits conflicted with other writers.
        """
        for tried in range(COMMIT_TRIES):
            snapshot = self._load_or_create(table)
            states = tuple(change.state_in(snapshot) for change in changes)
            behind = [change for change, state in zip(changes, states, strict=True) if state is CommitState.BEHIND]
            if not behind:
                return Committed(snapshot.version, states)
            self._check_files(behind)
            record_unnamed(self.warehouse, (file for change in behind for file in change.files))
            staged = [StagedPartition(table.name, change.partition, change.files) for change in behind]
            transactions: Mapping[str, int] = {name: n for change in behind for name, n in change.transactions.items()}
            try:
                self.log.commit(snapshot, table, staged, transactions, mode)
            except ConflictError:
                time.sleep(_RETRY_SECONDS * (tried + 1) * random.random())
                continue
            return Committed(snapshot.version + 1, states)
        raise JobError(f"{table.name}: gave up after {COMMIT_TRIES} conflicts with other writers; run the task again")

    def swap(
        self,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition] = (),
        forgotten: Collection[str] = (),
    ) -> None:
        """Name some files instead of lost ones, whatever the commit rule says: a repair makes no version.

        Args:
            table: the table.
            lost: files to remove; those that the table no longer names are ignored.
            staged: files to name instead.
            forgotten: keys whose version the table forgets, so that it can be committed again.

        Raises:
            JobError: 20 commits conflicted with other writers.
        """
        transactions = {name: 0 for key in forgotten for name in (_number_of(key), _manifest_of(key))}
        record_unnamed(self.warehouse, (file for part in staged for file in part.files))
        for tried in range(COMMIT_TRIES):
            try:
                return self.log.swap(self.load(table), table, lost, staged, transactions)
            except ConflictError:
                time.sleep(_RETRY_SECONDS * (tried + 1) * random.random())
        raise JobError(f"{table.name}: gave up after {COMMIT_TRIES} conflicts with other writers; run the command again")

    def _load_or_create(self, table: Table) -> Snapshot:
        """Return the newest snapshot; a table that is new in this release is created first if an earlier one planned the run."""
        try:
            return self.log.load(table)
        except NoTableError:
            if not table.is_new:
                raise
            self.log.create(table)
            return self.log.load(table)

    def _check_files(self, changes: Sequence[Change]) -> None:
        for file in (file for change in changes for file in change.files):
            size_bytes = self.warehouse.size(file.path)
            if size_bytes != file.size_bytes:
                raise JobError(
                    f"{self.warehouse.uri_of(file.path)} has {size_bytes} bytes, its report says {file.size_bytes}: "
                    "staged files were removed or damaged; start a new run of the batch"
                )
