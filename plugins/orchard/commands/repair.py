"""`orchard repair`: mends the tables after files were lost or damaged, and says what has to run again."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from orchard.maintenance.repair import Repair, repair
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "repair"
HELP = "mend the tables after files were lost or damaged, and say what has to run again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: whether to change anything."""
    parser.description = f"{HELP}. It starts no run. A second repair finds nothing left to mend."
    parser.add_argument("--dry-run", action="store_true", help="only say what a repair would do")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Mend the tables, or say how; the exit status is 0 in both cases."""
    found = repair(tables, settings, is_dry=arguments.dry_run)
    if arguments.json:
        print(json.dumps(asdict(found) | {"is_dry": arguments.dry_run}))
    else:
        print("\n".join(_lines(found, arguments.dry_run)))
    return 0


def _lines(found: Repair, is_dry: bool) -> Iterator[str]:
    if not found.mended:
        yield "nothing is lost or damaged"
        return
    yield from found.mended
    yield from (f"cannot be brought back: {one}" for one in found.lost)
    if found.batches:
        yield f"batches to run again: {', '.join(found.batches)}"
    if is_dry:
        yield "nothing was changed: `orchard repair` does it"
        return
    yield "no run was started. next: start reconcile_uploads, which starts each batch that needs it, and pca_model"
    yield "      airflow dags trigger reconcile_uploads"
