"""`orchard clean`: shows unused files, and removes them with `--yes`."""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from orchard.commands.console import format_bytes, format_table
from orchard.maintenance.clean import clean, find_removals, totals
from orchard.models.retention import expired_models
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "clean"
HELP = "show unused files, and remove them with --yes"

_MOST_DAYS = 36_500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the age of the files, and whether to remove them."""
    parser.add_argument(
        "--older-than", type=_days, metavar="DAYS", help="instead of ORCHARD_RETENTION_DAYS; 0: no run may be active"
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--yes", action="store_true", help="remove them")
    chosen.add_argument("--dry-run", action="store_true", help="only show them, as without --yes")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Show or remove the files; the exit status is 0 in both cases."""
    days = settings.retention.days if arguments.older_than is None else arguments.older_than
    retention, now = timedelta(days=days), datetime.now(UTC)
    expired = expired_models(tables, settings, now)
    removals = () if arguments.yes else find_removals(tables, settings, now, retention)
    found = clean(tables, settings, now, retention) if arguments.yes else totals(removals)
    if arguments.json:
        answer = {
            "is_removed": arguments.yes,
            "older_than_days": days,
            "totals": [asdict(total) for total in found],
            "models": expired,
        }
        print(json.dumps(answer | {"files": [removal.path for removal in removals]}))
        return 0
    for model_id in expired:
        print(f"model {model_id}: its rows {'were' if arguments.yes else 'would be'} removed from pca_features")
    if not found:
        print(f"nothing to remove: everything older than {days:g} days is still in use")
        return 0
    rows = [(total.kind, str(total.files), format_bytes(total.size_bytes)) for total in found]
    print(format_table(("kind", "files", "size"), rows))
    print("removed" if arguments.yes else "nothing was removed: `orchard clean --yes` removes them")
    return 0


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 0 to {_MOST_DAYS}")
    return value
