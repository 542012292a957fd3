"""What a catalog records of a table: its folder and its columns.

Readers take all else from the Delta log, so an entry stays right when batches are published. It knows no catalog.
"""

import enum
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from deltalake import Schema
from orchard_jobs.contract.columns import TABLES, Table
from orchard_jobs.contract.locations import folder_uri, local_path
from orchard_jobs.errors import ConfigurationError, JobError, NoTableError
from orchard_jobs.schemas import arrow_schema

from orchard.tables.commit_rule import Tables

# What Hive and Spark's SQL call otherwise than the Delta log does.
_SQL_NAMES = {"integer": "int", "long": "bigint"}


class EntryState(enum.Enum):
    """Whether a catalog has a table."""

    THERE = "there"
    MISSING = "missing"
    OUTDATED = "outdated"
    """It names this table's folder, with other columns or not in the form that readers want."""


@dataclass(frozen=True)
class CatalogEntry:
    """An existing table, and its folder's URI."""

    table: Table
    location: str

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The columns, as the Delta log has them."""
        schema = Schema.from_arrow(arrow_schema(self.table, with_partitions=True))
        fields: list[dict[str, Any]] = json.loads(schema.to_json())["fields"]
        return fields

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The columns' names and types, partition columns last; Hive and Spark spell these types the same way."""
        return [(field["name"], _sql_type(field["type"])) for field in self.fields]


class Catalog(Protocol):
    """Where tables are registered."""

    @property
    def name(self) -> str:
        """The prefix of a table's name."""

    def state_of(self, entry: CatalogEntry) -> EntryState:
        """Return whether the catalog has a table; change nothing.

        Raises:
            ConfigurationError: the name is taken by something else, or the table must not be registered there.
            JobError: the catalog cannot be read.
        """

    def put(self, entry: CatalogEntry) -> None:
        """Register a table that is missing, or bring an outdated entry up to date. JobError if that fails."""


def entries_of(tables: Tables) -> list[CatalogEntry]:
    """Return the warehouse's existing tables.

    Raises:
        ConfigurationError: the warehouse lies on a disk, or its tables have another schema version.
        JobError: there is no table.
    """
    uri = tables.warehouse.uri
    if local_path(uri) is not None:
        raise ConfigurationError(f"the warehouse {uri} is on a disk, which no catalog's readers can reach: it must be in S3")
    found = []
    for table in TABLES:
        with suppress(NoTableError):
            if tables.is_yet_to_come(table):
                continue
            tables.load(table)
            found.append(CatalogEntry(table, tables.warehouse.uri_of(table.name)))
    if not found:
        raise JobError(f"{uri} holds no table: run a batch first, its plan_batch creates them")
    return found


def check_is_same_table(full_name: str, is_delta: bool, location: str, entry: CatalogEntry) -> None:
    """Refuse what a catalog has under a table's name unless it is this table; ConfigurationError."""
    if not is_delta:
        raise ConfigurationError(
            f"{full_name} already exists and is not an external Delta table: register in another place, or drop it first"
        )
    if not is_same_folder(location, entry.location):
        raise ConfigurationError(
            f"{full_name} already exists in {location}, not in {entry.location}: register in another place, or drop it first"
        )


def is_same_folder(one: str, other: str) -> bool:
    """Tell whether two URIs name one folder."""
    return folder_uri(one) == folder_uri(other)


def _sql_type(kind: Any) -> str:
    if isinstance(kind, str):
        return _SQL_NAMES.get(kind, kind)
    if kind["type"] == "array":
        return f"array<{_sql_type(kind['elementType'])}>"
    parts = [f"{field['name']}:{_sql_type(field['type'])}" for field in kind["fields"]]
    return f"struct<{','.join(parts)}>"
