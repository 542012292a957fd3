"""The log of a table: which files it names at a version, and the one step that changes it. Delta through delta-rs.

`TableLog` is all that publishing needs of a table format. It knows no batch and no model; `commit_rule` does.
"""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from orchard_jobs.contract.columns import SCHEMA_VERSION, Table
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.contract.layout import relative_to_table, table_path
from orchard_jobs.errors import ConfigurationError, JobError, NoTableError
from orchard_jobs.parquet import open_parquet
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse
from orchard_jobs.store_errors import explained, explaining_store_errors

from orchard.tables.added_columns import add_missing_columns
from orchard.tables.log_files import LogFiles, explaining_log_faults
from orchard.tables.log_paths import LogPath

Mode = Literal["overwrite", "append"]
_SCHEMA_VERSION = "orchard.schemaVersion"
_LOG_DAYS = 366


class ConflictError(Exception):
    """Somebody committed since the snapshot was taken. It says nothing about who won: load again and look."""


@dataclass(frozen=True)
class TableFile:
    """One file that a table names: its path relative to the warehouse, its size, its rows, its partition's values."""

    path: str
    size_bytes: int
    rows: int
    partition: Mapping[str, str]


class Snapshot(Protocol):
    """A table at one version."""

    @property
    def version(self) -> int:
        """The version's number in the log."""

    def transaction(self, name: str) -> int | None:
        """Return the number that the last commit of a named transaction carried, or None."""

    def files(self, **partition: str) -> list[TableFile]:
        """Return the files of the named partition values, sorted by path."""


class TableLog(Protocol):
    """The logs of one warehouse's tables."""

    def create(self, table: Table) -> None:
        """Create a table, empty, or add the columns that one of an earlier release lacks; two at once do no harm."""

    def load(self, table: Table, version: int | None = None) -> Snapshot:
        """Return the newest snapshot, or that of a version; NoTableError when the table was never created."""

    def commit(
        self, snapshot: Snapshot, table: Table, staged: Sequence[StagedPartition], transactions: Mapping[str, int], mode: Mode
    ) -> None:
        """Make the version after a snapshot.

        Args:
            snapshot: what the commit was decided on.
            table: its table.
            staged: the files to name, a table partition each.
            transactions: numbers that the commit carries by name.
            mode: `overwrite` replaces each staged partition; `append` adds to it.

        Raises:
            ConflictError: the commit was refused because of another one.
        """

    def swap(
        self,
        snapshot: Snapshot,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition],
        transactions: Mapping[str, int],
    ) -> None:
        """Make the version after a snapshot that names some files instead of lost ones, whatever the commit rule says.

        Raises:
            ConflictError: the commit was refused because of another one.
        """

    def replaced(self, table: Table) -> Mapping[str, datetime]:
        """Return the files, relative to the warehouse, that a commit took out of the table, and when, by its machine's clock.

        The log forgets such files after a time of its own; they are then like files that it never named.
        """


@dataclass(frozen=True)
class DeltaSnapshot:
    """A Delta table at one version."""

    delta: DeltaTable
    table: Table
    warehouse: Warehouse

    @property
    def version(self) -> int:
        """The version's number in the log."""
        return self.delta.version()

    def transaction(self, name: str) -> int | None:
        """Return the version of a Delta app transaction."""
        with explaining_log_faults(self.warehouse, self.table):
            return self._transactions.get(name)

    @cached_property
    def _transactions(self) -> Mapping[str, int]:
        """The number of each transaction, from the newest checkpoint (delta-rs writes one every 100 commits) and what follows.

        `DeltaTable.transaction_version` reads all of that again for each name: 1 to 4 ms here, and requests on an object store.
        """
        return dict(self._actions("txn", "appId", "version"))

    @property
    def removals(self) -> Mapping[str, datetime]:
        """When a commit took each file out that the log still remembers, by its path relative to the warehouse."""
        with explaining_log_faults(self.warehouse, self.table):
            found = self._actions("remove", "path", "deletionTimestamp")
            # delta-rs encodes the paths that it is asked to remove.
            return {table_path(self.table, unquote(path)): datetime.fromtimestamp(ms / 1000, UTC) for path, ms in found}

    def _actions(self, kind: str, *fields: str) -> Iterator[tuple[Any, ...]]:
        """Yield some fields of each action of a kind: those of the newest checkpoint, then those of the commits after it."""
        checkpoints = LogFiles.of(self.warehouse, self.table).checkpoints
        newest = max((version for version in checkpoints if version <= self.version), default=-1)
        if newest >= 0:
            with open_parquet(self.warehouse, checkpoints[newest]) as file:
                rows = file.read([f"{kind}.{name}" for name in fields]).column(kind).combine_chunks().drop_null()
            yield from zip(*(rows.field(name).to_pylist() for name in fields), strict=True)
        begins = f'{{"{kind}"'.encode()
        for version in range(newest + 1, self.version + 1):
            for line in self.warehouse.read(str(LogPath(self.table, version))).splitlines():
                if line.startswith(begins):
                    action = json.loads(line)[kind]
                    yield tuple(action[name] for name in fields)

    def files(self, **partition: str) -> list[TableFile]:
        """Return the files of the named partition values, sorted by path."""
        with explaining_log_faults(self.warehouse, self.table):
            return sorted(self._files(partition), key=lambda file: file.path)

    def _files(self, wanted: Mapping[str, str]) -> Iterator[TableFile]:
        columns = ["path", "size_bytes", "num_records", *(["partition"] if self.table.partition_by else [])]
        actions = pa.table(self.delta.get_add_actions(flatten=False)).select(columns)
        for name, value in wanted.items():
            actions = actions.filter(pc.equal(pc.struct_field(actions["partition"], name), value))
        for action in actions.to_pylist():
            path = table_path(self.table, action["path"])
            yield TableFile(path, action["size_bytes"], action["num_records"], action.get("partition", {}))


@dataclass(frozen=True)
class DeltaLog:
    """Logs in the Delta format, in the tables' own folders."""

    warehouse: Warehouse

    def create(self, table: Table) -> None:
        """Create a table, empty, or add the columns that one of an earlier release lacks. They are null in its rows.

        Raises:
            ConfigurationError: the table is there with another schema version.
            JobError: its store cannot be reached or written.
        """
        if DeltaTable.is_deltatable(self._uri(table), _storage_options()):
            return add_missing_columns(lambda: self.load(table).delta, table)
        try:
            with explaining_store_errors(self._uri(table)):
                self._create(table)
        except DeltaError as error:  # the folder cannot be made
            raise JobError(f"{self._uri(table)} {explained(error)}") from error

    def _create(self, table: Table) -> None:
        DeltaTable.create(
            self._uri(table),
            arrow_schema(table, with_partitions=True),
            mode="ignore",
            partition_by=list(table.partition_by) or None,
            # Statistics of values would leave file names and labels in the log after an erasure.
            configuration={
                "delta.dataSkippingNumIndexedCols": "0",
                # A half-way version is compared with the one before, and cleaning asks when a file was replaced.
                "delta.deletedFileRetentionDuration": f"interval {_LOG_DAYS} days",
                "delta.logRetentionDuration": f"interval {_LOG_DAYS} days",
                _SCHEMA_VERSION: str(SCHEMA_VERSION),
            },
            raise_if_key_not_exists=False,
            storage_options=_storage_options(),
        )

    def load(self, table: Table, version: int | None = None) -> DeltaSnapshot:
        """Return the newest snapshot, or that of a version.

        Raises:
            JobError: its store cannot be reached; NoTableError when the table was never created.
            DamagedFileError: a commit or a checkpoint is lost or damaged.
            ConfigurationError: it has another schema version.
        """
        try:
            with explaining_store_errors(self._uri(table)), explaining_log_faults(self.warehouse, table):
                delta = DeltaTable(self._uri(table), version=version, storage_options=_storage_options())
        except TableNotFoundError as error:
            what = "run a batch first, its plan_batch creates it; `orchard repair` recreates a lost one"
            raise NoTableError(f"{self._uri(table)} is not a table: {what}") from error
        found = delta.metadata().configuration.get(_SCHEMA_VERSION)
        if found != str(SCHEMA_VERSION):
            raise ConfigurationError(
                f"{self._uri(table)} has schema version {found}; this release supports schema {SCHEMA_VERSION}: use a new "
                "ORCHARD_WAREHOUSE (everything is recomputed) or the release that wrote these tables"
            )
        return DeltaSnapshot(delta, table, self.warehouse)

    def commit(
        self, snapshot: Snapshot, table: Table, staged: Sequence[StagedPartition], transactions: Mapping[str, int], mode: Mode
    ) -> None:
        """Make the version after a snapshot, or raise ConflictError."""
        replaced = {part.partition for part in staged} if mode == "overwrite" else set()
        lost = [file.path for file in snapshot.files() if tuple(file.partition[name] for name in table.partition_by) in replaced]
        self.swap(snapshot, table, lost, staged, transactions)

    def swap(
        self,
        snapshot: Snapshot,
        table: Table,
        lost: Collection[str],
        staged: Sequence[StagedPartition],
        transactions: Mapping[str, int],
    ) -> None:
        """Make the version after a snapshot that names some files instead of others, or raise ConflictError."""
        assert isinstance(snapshot, DeltaSnapshot), "a snapshot goes back to the log that it came from"
        try:
            with explaining_store_errors(self._uri(table)), explaining_log_faults(self.warehouse, table):
                snapshot.delta.create_write_transaction(
                    [*_remove_actions(snapshot, frozenset(lost)), *_add_actions(table, staged)],
                    # Not "overwrite": its filters join each column's values, so they cannot name (x, 1) and (y, 2) alone.
                    "append",
                    snapshot.delta.schema(),
                    list(table.partition_by) or None,
                    commit_properties=CommitProperties(
                        # A retry inside delta-rs would not apply the commit rule, and the version would not be known.
                        max_commit_retries=0,
                        app_transactions=[Transaction(name, number) for name, number in transactions.items()],
                    ),
                )
        except CommitFailedError as error:
            raise ConflictError(str(error)) from error

    def replaced(self, table: Table) -> Mapping[str, datetime]:
        """Return the files that a commit took out of the table, and when: vacuum names none whose time is yet to come."""
        return self.load(table).removals

    def _uri(self, table: Table) -> str:
        return self.warehouse.uri_of(table.name)


def _storage_options() -> dict[str, str]:
    is_plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"AWS_ALLOW_HTTP": "true"} if is_plain else {}


def _add_actions(table: Table, staged: Sequence[StagedPartition]) -> Iterator[AddAction]:
    now = int(time.time() * 1000)
    for part in staged:
        partition = dict(zip(table.partition_by, part.partition, strict=True))
        for file in part.files:
            path = relative_to_table(table, file.path)
            yield AddAction(path, file.size_bytes, partition, now, True, json.dumps({"numRecords": file.rows}))


def _remove_actions(snapshot: DeltaSnapshot, lost: Collection[str]) -> Iterator[RemoveAction]:
    """Yield what takes some files out of a snapshot."""
    table, now = snapshot.table, int(time.time() * 1000)
    for file in snapshot.files() if lost else ():
        if file.path in lost:
            yield RemoveAction(relative_to_table(table, file.path), True, now, file.size_bytes, dict(file.partition))
