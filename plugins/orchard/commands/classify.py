"""`orchard classify`: what image files show, by a classifier, computed by the jobs' own code in the jobs' own environment."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.escaping import escaped

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
    """Print a line a file as it is done; 1 when one is bad."""
    classifier = _classifier(arguments.model, settings, tables)
    status = 0
    for row in rows_of_files(settings, ["--classifier", json.dumps(asdict(classifier))], arguments.files):
        status = 1 if "reason" in row else status
        found = row if "reason" in row else row | {"backbone": settings.backbone.id, "model_id": classifier.model_id}
        print(json.dumps(found) if arguments.json else _line(found), flush=True)
    return status


def _classifier(text: str | None, settings: Settings, tables: Tables) -> ModelReference:
    """Return the named classifier, or the current one."""
    backbone = settings.backbone.id
    if text is not None:
        return model_reference(tables.warehouse, known_model(tables, backbone, text, (CLASSIFIER,))[0], CLASSIFIER)
    current = current_model(tables, backbone, CLASSIFIER)
    if current is None:
        raise ConfigurationError(f"there is no classifier of {backbone} yet: run {CLASSIFIER.dag_id} first")
    return current


def _line(row: dict[str, Any]) -> str:
    file = escaped(row["file"])
    if "reason" in row:
        return f"{file}  {row['reason']}: {escaped(row['message'])}"
    told = f"{escaped(row['predicted'])} {row['score']:.2f}, then {escaped(row['second'])} {row['second_score']:.2f}"
    if row["is_known"]:
        return f"{file}  {told}"
    return f"{file}  none of the classes: {row['distance']:.1f} away, the limit is {row['max_distance']:.1f} (else {told})"
