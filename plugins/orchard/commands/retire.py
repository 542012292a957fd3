"""`orchard retire`: removes all rows of a former backbone from the tables."""

import argparse
import json
from dataclasses import asdict

from orchard_jobs.errors import ConfigurationError

from orchard.maintenance.retire import BackboneRows, backbones, retire_backbone
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "retire"
HELP = "show the rows of a former backbone, and remove them from the tables with --yes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the backbone, and whether to remove its rows."""
    parser.description = f"{HELP}. `orchard clean` removes their files one retention later."
    parser.add_argument("backbone", metavar="BACKBONE", help="full name of the backbone, as in the tables' partitions")
    parser.add_argument("--yes", action="store_true", help="remove the rows")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Show or remove the rows; the exit status is 0 in both cases."""
    held = _rows_of(arguments.backbone, settings, tables)
    if arguments.yes:
        retire_backbone(tables, settings, arguments.backbone)
    if arguments.json:
        print(json.dumps(asdict(held) | {"is_retired": arguments.yes}))
        return 0
    rows = ", ".join(f"{count} of {table}" for table, count in held.rows.items())
    print(f"{held.backbone}: {held.batches} batches, rows: {rows}")
    print("retired" if arguments.yes else f"nothing was changed: `orchard retire {held.backbone} --yes` removes them")
    return 0


def _rows_of(backbone: str, settings: Settings, tables: Tables) -> BackboneRows:
    """Return the rows to remove; refuse what `retire_backbone` would refuse."""
    found = {one.backbone: one for one in backbones(tables)}
    if backbone == settings.backbone.id:
        raise ConfigurationError(
            f"{backbone} is the current backbone: set ORCHARD_BACKBONE, ORCHARD_ENGINE or ORCHARD_VIEWS to another one first"
        )
    if backbone not in found:
        raise ConfigurationError(f"no table has rows of backbone {backbone!r}; there are: {', '.join(found) or 'none'}")
    return found[backbone]
