"""`orchard pages`: builds the view that the pages in Airflow's UI read anew."""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime

from orchard.reporting.view_refresh import refresh_view
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "pages"
HELP = "build the view that the pages under Browse > Orchard read anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how to print."""
    parser.description = f"{HELP}, from the tables and manifests. It changes no table, and may run beside anything."
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Build it; 0."""
    pointer = refresh_view(tables, settings, datetime.now(UTC), is_anew=True)
    if arguments.json:
        print(json.dumps(asdict(pointer)))
    else:
        print(f"the view shows version {pointer.runs_version} of runs; begun and not published: {len(pointer.begun)}")
    return 0
