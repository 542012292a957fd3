"""`orchard embed`: features and pca_features of image files, computed by the jobs' own code in the jobs' own environment."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchard_jobs.contract.manifest import ModelReference

from orchard.commands.console import print_files
from orchard.deployment.jobs_python import rows_of_files
from orchard.models.model import current_promotion, model_reference
from orchard.reporting.export import chosen_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "embed"
HELP = "compute features and pca_features of image files, as the jobs do"
_FIRST = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the files and the model."""
    parser.description = (
        f"{HELP}. The exit status is 1 if a file cannot be read or would be quarantined; the other files are still processed."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="an image file, or - for stdin")
    parser.add_argument("--model", metavar="ID", help="this PCA model instead of the current one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each file, with every value")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Print a line for each file as it is done; the exit status is 1 if one is bad."""
    model = _model(arguments.model, settings, tables)
    known = {"backbone": settings.backbone.id, "model_id": model.model_id if model else None}
    return print_files(embed(settings, arguments.files, model), known, _text, is_json=arguments.json)


def embed(settings: Settings, files: Sequence[str], model: ModelReference | None) -> Iterator[dict[str, Any]]:
    """Return an iterator of what the jobs' environment computes for each file, in order.

    Raises:
        ConfigurationError: the jobs' environment, the weights or a package are not there.
        JobError: the process ended before it had done every file.
    """
    return rows_of_files(settings, ["--model", json.dumps(asdict(model))] if model else [], files)


def _model(text: str | None, settings: Settings, tables: Tables) -> ModelReference | None:
    """Return the named model, or the current one; None when there is none yet."""
    backbone = settings.backbone.id
    if text is None and current_promotion(tables, backbone) is None:
        return None
    return model_reference(tables.warehouse, chosen_model(tables, backbone, text))


def _text(row: Mapping[str, Any]) -> str:
    values = row["pca_features"] or row["features"]
    name = "features (no PCA model yet)" if row["pca_features"] is None else f"pca_features of {row['model_id']}"
    first = ", ".join(f"{value:.4g}" for value in values[:_FIRST])
    return f"{row['width']}x{row['height']}  {row['content_sha256'][:12]}  {len(values)} {name}: {first}, ..."
