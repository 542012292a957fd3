"""The published tables: created empty, read, and changed under one commit rule. Delta through delta-rs.

Every commit carries a Delta app transaction for each key that it changes (`batch:<backbone>/<batch>`, in pca_features
`batch:<model>/<batch>`): its version is the batch version's number. A second one carries the first 60 bits of the manifest's
digest, so that a writer tells its own version from a rival's of the same number without reading the log's history.
"""

import enum
import io
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction
from orchard_jobs.audit.schemas import arrow_schema
from orchard_jobs.contract.columns import SCHEMA_VERSION, TABLES, Table
from orchard_jobs.contract.jobs import StagedFile
from orchard_jobs.contract.layout import random_element
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse

COMMIT_ATTEMPTS = 20
Mode = Literal["overwrite", "append"]
_RETRY_SECONDS = 0.1


class Standing(enum.Enum):
    """How a table stands to a change that a writer wants to commit."""

    BEHIND = "behind"
    """The table holds a lower number: commit."""
    DONE = "done"
    """The table holds this very change."""
    SUPERSEDED = "superseded"
    """The table holds a higher number, or a rival's change of the same number."""


@dataclass(frozen=True)
class Change:
    """What one commit does under one key.

    Attributes:
        key: what is versioned: `<backbone>/<batch>`, `<model>/<batch>`, a model, a backbone's promotions.
        number: the version's number under that key.
        digest: 64 hex digits that tell this version from a rival's of the same number: the manifest's digest.
        partition: values of the table's partition columns.
        files: the staged files; none is an empty replacement.
    """

    key: str
    number: int
    digest: str
    partition: tuple[str, ...] = ()
    files: tuple[StagedFile, ...] = ()

    @property
    def transactions(self) -> list[Transaction]:
        """The Delta app transactions that name this change in the log."""
        return [
            Transaction(f"batch:{self.key}", self.number),
            Transaction(f"manifest:{self.key}", _tag(self.digest)),
        ]

    def standing(self, snapshot: DeltaTable) -> Standing:
        """Return how a table's snapshot stands to this change."""
        held = snapshot.transaction_version(f"batch:{self.key}") or 0
        if held < self.number:
            return Standing.BEHIND
        is_ours = held == self.number and snapshot.transaction_version(f"manifest:{self.key}") == _tag(self.digest)
        return Standing.DONE if is_ours else Standing.SUPERSEDED


def _tag(digest: str) -> int:
    return int(digest[:15], 16)


@dataclass(frozen=True)
class Committed:
    """The table's version after a commit (or now, where nothing was left to do), and each change's standing before it."""

    version: int
    standings: tuple[Standing, ...]


@dataclass(frozen=True)
class Tables:
    """The tables of one warehouse."""

    warehouse: Warehouse

    def create_all(self) -> None:
        """Create every table that is not there, empty; two at once do no harm."""
        for table in TABLES:
            if DeltaTable.is_deltatable(self._uri(table), _storage_options()):
                continue
            DeltaTable.create(
                self._uri(table),
                arrow_schema(table, with_partitions=True),
                mode="ignore",
                partition_by=list(table.partition_by) or None,
                # Statistics of values would leave file names and labels in the log after an erasure.
                configuration={"delta.dataSkippingNumIndexedCols": "0", "orchard.schemaVersion": str(SCHEMA_VERSION)},
                raise_if_key_not_exists=False,
                storage_options=_storage_options(),
            )

    def load(self, table: Table, version: int | None = None) -> DeltaTable:
        """Return the table's newest snapshot, or that of a version; JobError when the table was never created."""
        try:
            return DeltaTable(self._uri(table), version=version, storage_options=_storage_options())
        except TableNotFoundError as error:
            raise JobError(f"{self._uri(table)} is no table: run a batch first, its plan_batch creates it") from error

    def _uri(self, table: Table) -> str:
        return self.warehouse.uri_of(table.name)

    def number(self, table: Table, key: str) -> int:
        """Return the number of the version that a table holds under a key; 0 when it holds none."""
        return self.load(table).transaction_version(f"batch:{key}") or 0

    def digest_prefix(self, table: Table, key: str) -> str | None:
        """Return the first 15 hex digits of the manifest digest that a table holds under a key."""
        tag = self.load(table).transaction_version(f"manifest:{key}")
        return None if tag is None else f"{tag:015x}"

    def files(self, table: Table, **partition: str) -> tuple[str, ...]:
        """Return the table's files, relative to the warehouse, of the named partition values, sorted."""
        return tuple(path for path, _ in listed_files(self.load(table), table, **partition))

    def rows(self, table: Table, columns: Sequence[str] | None = None, **partition: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of the named partition values as dicts, partition columns among them, file after file."""
        for path, values in listed_files(self.load(table), table, **partition):
            names = None if columns is None else [name for name in columns if name not in values]
            with pq.ParquetFile(self.warehouse.open(path)) as file:
                for batch in file.iter_batches(columns=names):
                    for row in batch.to_pylist():
                        yield row | values

    def stage(self, table: Table, rows: Sequence[dict[str, Any]], partition: tuple[str, ...] = ()) -> StagedFile:
        """Write a few rows as one fresh file of a table that no log names yet."""
        packed = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows), arrow_schema(table)), packed)
        hive = [f"{name}={value}" for name, value in zip(table.partition_by, partition, strict=True)]
        path = "/".join([table.name, *hive, random_element(), "part-00000.parquet"])
        self.warehouse.create(path, packed.getvalue())
        return StagedFile(path, packed.tell(), len(rows), self.warehouse.sha256(path))

    def commit(self, table: Table, changes: Sequence[Change], mode: Mode = "overwrite") -> Committed:
        """Commit the changes that the table is behind, in one Delta commit, under the one rule.

        Before each try the table is loaded afresh: a change whose number is higher than the table's is committed; one that
        is there already is done; any other is superseded and left out. A conflict says nothing about who won, so it only
        means: load again and apply the rule.

        Args:
            table: the table.
            changes: what to commit, one a key.
            mode: `overwrite` replaces each change's table partition; `append` adds its files.

        Raises:
            JobError: a staged file is gone or has another size, or 20 tries all met a rival.
        """
        for attempt in range(COMMIT_ATTEMPTS):
            snapshot = self.load(table)
            standings = tuple(change.standing(snapshot) for change in changes)
            behind = [change for change, standing in zip(changes, standings, strict=True) if standing is Standing.BEHIND]
            if not behind:
                return Committed(snapshot.version(), standings)
            self._check_files(behind)
            try:
                self._write(snapshot, table, behind, mode)
            except CommitFailedError:
                time.sleep(_RETRY_SECONDS * (attempt + 1) * random.random())
                continue
            return Committed(snapshot.version() + 1, standings)
        raise JobError(f"{table.name}: {COMMIT_ATTEMPTS} commits in a row met a rival's; run the task again")

    def _check_files(self, changes: Sequence[Change]) -> None:
        for file in (file for change in changes for file in change.files):
            size_bytes = self.warehouse.size(file.path)
            if size_bytes != file.size_bytes:
                raise JobError(
                    f"{self.warehouse.uri_of(file.path)} has {size_bytes} bytes, its report says {file.size_bytes}: "
                    "staged files were removed or damaged; start a new run of the batch"
                )

    def _write(self, snapshot: DeltaTable, table: Table, changes: Sequence[Change], mode: Mode) -> None:
        snapshot.create_write_transaction(
            [_add_action(table, change, file) for change in changes for file in change.files],
            mode,
            snapshot.schema(),
            list(table.partition_by) or None,
            partition_filters=_partition_filters(table, changes) if mode == "overwrite" else None,
            commit_properties=CommitProperties(
                # A retry inside delta-rs would not apply the rule, and the version would not be known.
                max_commit_retries=0,
                app_transactions=[transaction for change in changes for transaction in change.transactions],
            ),
        )


def listed_files(snapshot: DeltaTable, table: Table, **partition: str) -> list[tuple[str, dict[str, str]]]:
    """Return (path relative to the warehouse, partition values) of a snapshot's files, sorted by path."""
    columns = ["path", "partition"] if table.partition_by else ["path"]
    found = []
    for action in pa.table(snapshot.get_add_actions(flatten=False)).select(columns).to_pylist():
        values = action.get("partition", {})
        if all(values[name] == value for name, value in partition.items()):
            found.append((f"{table.name}/{action['path']}", values))
    return sorted(found, key=lambda listed: listed[0])


def _storage_options() -> dict[str, str]:
    is_plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"AWS_ALLOW_HTTP": "true"} if is_plain else {}


def _add_action(table: Table, change: Change, file: StagedFile) -> AddAction:
    return AddAction(
        file.path.removeprefix(f"{table.name}/"),
        file.size_bytes,
        dict(zip(table.partition_by, change.partition, strict=True)),
        int(time.time() * 1000),
        True,
        json.dumps({"numRecords": file.rows}),
    )


def _partition_filters(table: Table, changes: Sequence[Change]) -> list[tuple[str, str, Any]]:
    """Return the filters that name exactly the changes' partitions: they share all columns but the last."""
    *shared, last = zip(*(change.partition for change in changes), strict=True)
    filters: list[tuple[str, str, Any]] = []
    for name, values in zip(table.partition_by, shared, strict=False):
        (value,) = set(values)
        filters.append((name, "=", value))
    return [*filters, (table.partition_by[-1], "in", list(last))]
