"""`orchard register`: registers the warehouse's tables as external tables in the Glue Data Catalog or in Unity Catalog."""

import argparse
import json
from typing import Any

from orchard.catalogs.entries import Catalog, EntryState, entries_of
from orchard.catalogs.glue import glue_database
from orchard.catalogs.unity import unity_schema
from orchard.clients import add_log_in
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "register"
HELP = "register the tables as external Delta tables in Glue or Unity Catalog"
_DONE = {EntryState.THERE: "there", EntryState.MISSING: "created", EntryState.OUTDATED: "updated"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the catalog, and how to log in to it."""
    parser.description = f"{HELP}. You can run it again at any time. If another table has a name, nothing is changed."
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--glue", metavar="DATABASE", help="a database of the Glue Data Catalog (for Athena, EMR, Trino)")
    where.add_argument("--unity", metavar="CATALOG.SCHEMA", help="a schema of Unity Catalog (for Databricks)")
    add_log_in(parser)
    parser.add_argument("--dry-run", action="store_true", help="only show what would be registered")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Register the tables that are not registered yet; the exit status is 0 once all are."""
    entries = entries_of(tables)
    name, connection = arguments.glue or arguments.unity, arguments.connection
    catalog: Catalog = glue_database(name, connection) if arguments.glue else unity_schema(name, connection)
    # All are looked at first: one that is refused leaves the others as they were, too.
    states = [(entry, catalog.state_of(entry)) for entry in entries]
    found: list[dict[str, Any]] = []
    for entry, state in states:
        if state is not EntryState.THERE and not arguments.dry_run:
            catalog.put(entry)
        result = state.value if arguments.dry_run else _DONE[state]
        found.append({"name": f"{catalog.name}.{entry.table.name}", "location": entry.location, "state": result})
    if arguments.json:
        print(json.dumps({"is_dry_run": arguments.dry_run, "tables": found}))
        return 0
    for table in found:
        print(f"{table['state']:<8}  {table['name']}  {table['location']}")
    if arguments.dry_run or all(state is EntryState.THERE for _, state in states):
        print("nothing was changed")
    return 0
