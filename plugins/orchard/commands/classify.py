"""`orchard classify`: what image files show, by a classifier, computed by the jobs' own code in the jobs' own environment."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.escaping import escaped

from orchard.commands.console import print_files
from orchard.deployment.jobs_python import rows_of_files
from orchard.models.kinds import CLASSIFIER
from orchard.models.model import current_model, known_model, model_reference
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "classify"
HELP = "say what image files show, by the current classifier"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files and the classifier."""
    parser.description = (
        f"{HELP}. Exit status 1 when a file cannot be read or would be quarantined; the other files are still processed."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="an image file, or - for stdin")
    parser.add_argument("--model", metavar="ID", help="this classifier instead of the current one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each file")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Print a line for each file as it is done; the exit status is 1 if one is bad."""
    classifier = _classifier(arguments.model, settings, tables)
    rows = rows_of_files(settings, ["--classifier", json.dumps(asdict(classifier))], arguments.files)
    known = {"backbone": settings.backbone.id, "model_id": classifier.model_id}
    return print_files(rows, known, _text, is_json=arguments.json)


def _classifier(text: str | None, settings: Settings, tables: Tables) -> ModelReference:
    """Return the named classifier, or the current one."""
    backbone = settings.backbone.id
    if text is not None:
        return model_reference(tables.warehouse, known_model(tables, backbone, text, (CLASSIFIER,))[0], CLASSIFIER)
    current = current_model(tables, backbone, CLASSIFIER)
    if current is None:
        raise ConfigurationError(f"there is no classifier of {backbone} yet: run {CLASSIFIER.dag_id} first")
    return current


def _text(row: Mapping[str, Any]) -> str:
    told = f"{escaped(row['predicted'])} {row['score']:.2f}, then {escaped(row['second'])} {row['second_score']:.2f}"
    if row["is_known"]:
        return told
    return f"none of the classes: {row['distance']:.1f} away, the limit is {row['max_distance']:.1f} (else {told})"
