"""`orchard retire`: takes all rows of a backbone that is no longer current out of the tables."""

import argparse
import json
from dataclasses import asdict

from orchard_jobs.errors import ConfigurationError

from orchard.maintenance.retire import BackboneRows, backbones, retire_backbone
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "retire"
HELP = "show, and with --yes take out of the tables, all rows of a backbone that is no longer current"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the backbone, and whether to do it."""
    parser.description = f"{HELP}. Its files go with `orchard clean`, one retention later."
    parser.add_argument("backbone", metavar="BACKBONE", help="its full name, as the tables' partitions have it")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Show or do; 0 in both cases."""
    held = _rows_of(arguments.backbone, settings, tables)
    if arguments.yes:
        retire_backbone(tables, settings, arguments.backbone)
    if arguments.json:
        print(json.dumps(asdict(held) | {"is_retired": arguments.yes}))
        return 0
    rows = ", ".join(f"{count} of {table}" for table, count in held.rows.items())
    print(f"{held.backbone}: {held.batches} batches, rows: {rows}")
    print("retired" if arguments.yes else f"nothing was changed: `orchard retire {held.backbone} --yes` does it")
    return 0


def _rows_of(backbone: str, settings: Settings, tables: Tables) -> BackboneRows:
    """Return what goes, refusing what `retire_backbone` would refuse."""
    found = {one.backbone: one for one in backbones(tables)}
    if backbone == settings.backbone.id:
        raise ConfigurationError(
            f"{backbone} is the current backbone: set ORCHARD_BACKBONE or ORCHARD_ENGINE to another one first"
        )
    if backbone not in found:
        raise ConfigurationError(f"no table has rows of backbone {backbone!r}; there are: {', '.join(found) or 'none'}")
    return found[backbone]
