"""The Glue Data Catalog, which Athena, EMR, Trino and Glue's own jobs read. Only an entry of the same table is overwritten."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from orchard.catalogs.entries import CatalogEntry, EntryState, check_is_same_table, is_same_folder
from orchard.clients import aws_client, explaining_aws_errors


def glue_database(name: str, connection: str | None) -> "GlueDatabase":
    """Return a database of the Glue Data Catalog; reaches nothing yet. JobError when the region is not known."""
    with explaining_aws_errors(f"reach Glue database {name}", "the region must be known"):
        return GlueDatabase(name, aws_client("glue", connection))


@dataclass(frozen=True)
class GlueDatabase:
    """A database of the Glue Data Catalog, as Athena, EMR, Trino and Glue's own jobs read it."""

    name: str
    client: Any

    def state_of(self, entry: CatalogEntry) -> EntryState:
        """See Catalog."""
        found = self._found(entry)
        if found is None:
            return EntryState.MISSING
        parameters, storage = found.get("Parameters", {}), found.get("StorageDescriptor", {})
        wanted = _glue_parameters()
        formats = {parameters[name].lower() for name in wanted if name != "EXTERNAL" and name in parameters}
        is_delta = formats == {"delta"} and found.get("TableType") == "EXTERNAL_TABLE"
        # Spark writes a placeholder as the location and the true one as `path`.
        path = storage.get("SerdeInfo", {}).get("Parameters", {}).get("path")
        check_is_same_table(f"{self.name}.{entry.table.name}", is_delta, path or storage.get("Location", ""), entry)
        is_right = (
            all(parameters.get(name, "").lower() == value.lower() for name, value in wanted.items())
            and path is not None
            and is_same_folder(storage.get("Location", ""), entry.location)
            and [(column["Name"], column.get("Type")) for column in storage.get("Columns", [])] == entry.columns
            and not found.get("PartitionKeys")
        )
        return EntryState.THERE if is_right else EntryState.OUTDATED

    def put(self, entry: CatalogEntry) -> None:
        """See Catalog. Of an outdated entry description, owner, retention and further parameters stay."""
        found = self._found(entry)
        wanted = _glue_table(entry)
        with self._told("write"):
            if found is None:
                self.client.create_table(DatabaseName=self.name, TableInput=wanted)
                return
            kept = {name: found[name] for name in ("Description", "Owner", "Retention") if name in found}
            parameters = {"Parameters": found.get("Parameters", {}) | wanted["Parameters"]}
            self.client.update_table(DatabaseName=self.name, TableInput=kept | wanted | parameters)

    def _found(self, entry: CatalogEntry) -> dict[str, Any] | None:
        with self._told("read"):
            self.client.get_database(Name=self.name)
            try:
                found: dict[str, Any] = self.client.get_table(DatabaseName=self.name, Name=entry.table.name)["Table"]
            except self.client.exceptions.EntityNotFoundException:
                return None
        return found

    def _told(self, verb: str) -> AbstractContextManager[None]:
        needs = "the database must be there, and the login needs glue:GetDatabase, GetTable, CreateTable and UpdateTable"
        return explaining_aws_errors(f"{verb} Glue database {self.name}", needs)


def _glue_parameters() -> dict[str, str]:
    # Athena goes by the first, Spark and Trino by the second.
    return {"table_type": "DELTA", "spark.sql.sources.provider": "delta", "EXTERNAL": "TRUE"}


def _glue_table(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "Name": entry.table.name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": _glue_parameters(),
        # Partition columns are columns here: the log, not the catalog, knows the partitions.
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [{"Name": name, "Type": kind} for name, kind in entry.columns],
            "Location": entry.location,
            # Spark's own for a table of another format than Hive's; Trino and Athena take the folder from `path`.
            "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "Parameters": {"path": entry.location, "serialization.format": "1"},
            },
        },
    }
