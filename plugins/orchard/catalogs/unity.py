"""Unity Catalog, which Databricks reads. What Databricks manages is left alone."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from orchard_jobs.contract.locations import folder_uri, is_below, prefix_of
from orchard_jobs.errors import ConfigurationError

from orchard.catalogs.entries import CatalogEntry, EntryState, check_is_same_table
from orchard.clients import databricks_client, explaining_databricks_errors

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.catalog import ColumnInfo

_MANAGED = "/__unitystorage/"


def unity_schema(name: str, connection: str | None) -> "UnitySchema":
    """Return a schema of Unity Catalog by `CATALOG.SCHEMA`; reaches nothing yet.

    Raises:
        ConfigurationError: the name has another form, or there is no log-in.
    """
    catalog, _, schema = name.partition(".")
    if not catalog or not schema or "." in schema:
        raise ConfigurationError(f"--unity {name!r} is not CATALOG.SCHEMA: name a schema of Unity Catalog")
    return UnitySchema(catalog, schema, databricks_client(connection))


@dataclass(frozen=True)
class UnitySchema:
    """A schema of Unity Catalog."""

    catalog: str
    schema: str
    client: "WorkspaceClient"

    @property
    def name(self) -> str:
        """The schema's full name."""
        return f"{self.catalog}.{self.schema}"

    def state_of(self, entry: CatalogEntry) -> EntryState:
        """See Catalog. Never OUTDATED: Unity's API changes no columns."""
        from databricks.sdk.errors import NotFound
        from databricks.sdk.service.catalog import DataSourceFormat, TableType

        self._check_unmanaged(entry)
        full_name = f"{self.name}.{entry.table.name}"
        with self._told("read"):
            try:
                found = self.client.tables.get(full_name)
            except NotFound:
                return EntryState.MISSING
        is_delta = (found.table_type, found.data_source_format) == (TableType.EXTERNAL, DataSourceFormat.DELTA)
        check_is_same_table(full_name, is_delta, found.storage_location or "", entry)
        if [(column.name, column.type_text) for column in found.columns or []] != entry.columns:
            raise ConfigurationError(
                f"{full_name} has other columns than its Delta log: run MSCK REPAIR TABLE {full_name} SYNC METADATA in Databricks"
            )
        return EntryState.THERE

    def put(self, entry: CatalogEntry) -> None:
        """See Catalog."""
        from databricks.sdk.service.catalog import DataSourceFormat, TableType

        with self._told("write"):
            self.client.tables.create(
                name=entry.table.name,
                catalog_name=self.catalog,
                schema_name=self.schema,
                table_type=TableType.EXTERNAL,
                data_source_format=DataSourceFormat.DELTA,
                storage_location=entry.location,
                columns=_unity_columns(entry),
            )

    @cached_property
    def _managed_roots(self) -> Mapping[str, str]:
        """The folders that Unity manages, each with whose it is."""
        with self._told("read"):
            catalog, schema = self.client.catalogs.get(self.catalog), self.client.schemas.get(self.name)
        roots = {schema.storage_root: self.name, schema.storage_location: self.name}
        roots |= {catalog.storage_root: self.catalog, catalog.storage_location: self.catalog}
        return {folder_uri(root): owner for root, owner in roots.items() if root}

    def _check_unmanaged(self, entry: CatalogEntry) -> None:
        location = prefix_of(folder_uri(entry.location))
        reason = "it is a folder of Unity's own" if _MANAGED in location else ""
        for root, owner in self._managed_roots.items():
            if is_below(location, root):
                reason = f"it is below {root}, the managed storage of {owner}"
        if reason:
            raise ConfigurationError(
                f"{entry.location} cannot be registered as an external table: {reason}, for tables that Databricks alone "
                "writes; set ORCHARD_WAREHOUSE to another folder, below an external location"
            )

    def _told(self, verb: str) -> AbstractContextManager[None]:
        return explaining_databricks_errors(
            f"{verb} Unity Catalog schema {self.name}",
            "the schema must be there, the warehouse below an external location, and the user needs USE CATALOG, USE SCHEMA, "
            "CREATE TABLE and EXTERNAL USE SCHEMA on the schema, CREATE EXTERNAL TABLE and EXTERNAL USE LOCATION on the location",
        )


def _unity_columns(entry: CatalogEntry) -> "list[ColumnInfo]":
    from databricks.sdk.service.catalog import ColumnInfo, ColumnTypeName

    found = []
    for position, (field, (name, text)) in enumerate(zip(entry.fields, entry.columns, strict=True)):
        kind = "array" if isinstance(field["type"], dict) else field["type"]
        found.append(
            ColumnInfo(
                name=name,
                type_text=text,
                type_name=ColumnTypeName["INT" if kind == "integer" else kind.upper()],
                type_json=json.dumps(field),
                position=position,
                nullable=field["nullable"],
                partition_index=entry.table.partition_by.index(name) if name in entry.table.partition_by else None,
            )
        )
    return found
