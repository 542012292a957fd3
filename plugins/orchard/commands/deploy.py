"""`orchard deploy`: uploads the jobs' package, and what else a cluster needs, to where the cluster reads it."""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.contract.locations import below
from orchard_jobs.errors import ConfigurationError

from orchard.clients import add_log_in
from orchard.commands.console import format_bytes
from orchard.deployment.destinations import (
    EMR_RELEASE,
    Destination,
    LocalFile,
    S3Prefix,
    application_named,
    create_application,
    destination_of,
    environment_file,
    package_files,
)
from orchard.deployment.jobs_python import prepare_backbone
from orchard.deployment.package import build_package
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "deploy"
HELP = "upload the jobs' package to an S3 prefix, or a volume or workspace folder of Databricks, and print its settings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the destination, and what else to upload or create."""
    parser.description = f"{HELP}. Files whose content has not changed are not uploaded again, so you can run it at any time."
    parser.add_argument("to", metavar="TO", help="s3://BUCKET/PREFIX, /Volumes/CATALOG/SCHEMA/VOLUME/FOLDER or /Workspace/FOLDER")
    parser.add_argument(
        "--environment",
        type=Path,
        metavar="FILE",
        help="also upload this archive of the jobs' environment (EMR; made for example by conda-pack)",
    )
    parser.add_argument(
        "--application", metavar="NAME", help="also create the EMR Serverless application of this name, unless it exists"
    )
    parser.add_argument("--release", default=EMR_RELEASE, help="EMR release of the application (default: %(default)s)")
    add_log_in(parser)
    parser.add_argument("--dry-run", action="store_true", help="only show what would be uploaded")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Upload what is missing; the exit status is 0 once all is there."""
    environment = environment_file(arguments.environment) if arguments.environment else None
    place = destination_of(arguments.to, arguments.connection)
    if environment and not isinstance(place, S3Prefix):
        raise ConfigurationError(
            f"--environment is for EMR: jobs that lie in {place.uri} get their Python packages by Databricks's own "
            "environments or libraries"
        )
    if arguments.application and not isinstance(place, S3Prefix):
        raise ConfigurationError(f"--application is for EMR Serverless, and {place.uri} is a folder of Databricks: omit it")
    package = build_package()
    named = {"ORCHARD_JOBS_URI": below(place.uri, package.name)}
    if environment:
        named["ORCHARD_JOBS_ENVIRONMENT"] = below(place.uri, environment.path)
    with tempfile.TemporaryDirectory() as folder:
        files = package_files(package, Path(folder)) + ([environment] if environment else [])
        found = list(_uploaded(place, files, arguments.dry_run))
    backbone = _backbone(settings, tables, arguments.dry_run)
    found += [backbone] if backbone else []
    if arguments.application:
        application, state = _application(arguments)
        found.append({"uri": f"application {arguments.application}", "size_bytes": None, "state": state})
        named |= {"ORCHARD_EMR_APPLICATION": application} if application else {}
    if arguments.json:
        print(json.dumps({"is_dry_run": arguments.dry_run, "files": found, "settings": named}))
        return 0
    for file in found:
        size = "" if file["size_bytes"] is None else f"  {format_bytes(file['size_bytes'])}"
        print(f"{file['state']:<9} {file['uri']}{size}")
    print("nothing was uploaded; without --dry-run these settings name it:" if arguments.dry_run else "settings:")
    for name, value in named.items():
        print(f"{name}={value}")
    return 0


def _uploaded(place: Destination, files: list[LocalFile], is_dry_run: bool) -> Iterator[dict[str, Any]]:
    """Upload each missing file; yield the state of each."""
    for file in files:
        is_there = place.has(file)
        if not is_there and not is_dry_run:
            place.put(file)
        state = "there" if is_there else "missing" if is_dry_run else "uploaded"
        yield {"uri": below(place.uri, file.path), "size_bytes": file.size_bytes, "state": state}


def _application(arguments: argparse.Namespace) -> tuple[str | None, str]:
    """Create the EMR Serverless application unless it exists; return its id and its state."""
    given = arguments.application, arguments.release, arguments.connection
    application = application_named(*given)
    if application or arguments.dry_run:
        return application, "there" if application else "missing"
    return create_application(*given), "created"


def _backbone(settings: Settings, tables: Tables, is_dry_run: bool) -> dict[str, Any] | None:
    """Export the backbone to the warehouse unless it is there; None for an engine that needs no export."""
    backbone, warehouse = settings.backbone, tables.warehouse
    if not backbone.is_exported:
        return None
    path = backbone_path(backbone.export_id)
    size_bytes = warehouse.size(path)
    state = "there"
    if size_bytes is None and is_dry_run:
        state = "missing"
    elif size_bytes is None:
        prepare_backbone(settings, os.environ)
        size_bytes, state = warehouse.size(path), "exported"
    return {"uri": warehouse.uri_of(path), "size_bytes": size_bytes, "state": state}
