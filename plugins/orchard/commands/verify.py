"""`orchard verify`: looks for files of the tables that are lost or damaged."""

import argparse
import json
from dataclasses import asdict

from orchard.commands.console import format_table
from orchard.maintenance.verify import Verified, look
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "verify"
HELP = "list files of the tables that are lost or damaged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: how closely to look."""
    parser.description = f"{HELP}. The exit status is 1 if a file is lost or damaged, else 0. Runs may be active meanwhile."
    parser.add_argument("--deep", action="store_true", help="read every file, and compare its SHA-256 with the recorded one")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Print what is damaged; the exit status is 1 if something is."""
    found = look(tables, is_deep=arguments.deep)
    if arguments.json:
        print(json.dumps(asdict(found) | {"is_deep": arguments.deep}))
    else:
        _print(found, settings.warehouse, arguments.deep)
    return 1 if found.damage else 0


def _print(found: Verified, warehouse: str, is_deep: bool) -> None:
    if not found.tables:
        print(
            f"{warehouse} holds no table. If no batch ran there yet, the first one creates them. If one did: check "
            "ORCHARD_WAREHOUSE and the disk; if they are lost, `orchard repair` creates them"
        )
    elif found.damage:
        rows = [(damage.table or "-", damage.batch_id or "-", damage.path, damage.fault) for damage in found.damage]
        print(format_table(("table", "batch", "file", "what is wrong"), rows))
        print(f"damaged files: {len(found.damage)}: `orchard repair` mends them, `orchard repair --dry-run` only says how")
    else:
        said = "nothing is lost or damaged" if is_deep else "no file is lost or cut; --deep also reads what they hold"
        print(f"{said} (looked at {found.tables} tables, {found.files} files)")
