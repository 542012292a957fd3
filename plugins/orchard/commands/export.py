"""`orchard export`: a table, one batch of it, or a model, to CSV or Parquet."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
from orchard_jobs.contract.columns import TABLES
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.schemas import arrow_schema

from orchard.commands.console import format_bytes
from orchard.models.model import read_model
from orchard.reporting.export import (
    FORMATS,
    MODEL_SCHEMA,
    chosen_model,
    chunks_of,
    chunks_of_model,
    select,
    whole_file,
    write_csv,
    write_parquet,
    write_raw_csv,
)
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "export"
HELP = "write a table, one batch of it, or a model's mean and components to CSV or Parquet"
_MODEL = "model"
_STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: what to export, and the file."""
    parser.add_argument("what", choices=[*(table.name for table in TABLES), _MODEL], metavar="TABLE", help="a table, or `model`")
    parser.add_argument("--to", required=True, metavar="FILE", help="a .csv or .parquet file, or - for CSV on stdout")
    parser.add_argument("--batch", help="only this batch")
    parser.add_argument("--model", metavar="ID", help="of pca_features and model: this model instead of the current one")
    parser.add_argument(
        "--raw", action="store_true", help="CSV: add no apostrophe to texts that a spreadsheet would run as formulas"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="say what was written as JSON (on stderr with --to -)")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Export; the exit status is 0 once the file is complete."""
    path = None if arguments.to == _STDOUT else Path(arguments.to)
    file_format = _format_of(path)
    schema, chunks, left_out = _chosen(arguments, settings, tables)
    write = write_parquet if file_format == "parquet" else write_raw_csv if arguments.raw else write_csv
    for batch_id in left_out:
        print(f"orchard: batch {batch_id} is not exported: {arguments.what} holds no row of its current version", file=sys.stderr)
    if path is None:
        rows = write(chunks, schema, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        _say(arguments, {"rows": rows, "left_out": left_out}, f"{rows} rows", sys.stderr)
        return 0
    with whole_file(path, arguments.force) as file:
        rows = write(chunks, schema, file)
    size_bytes = path.stat().st_size
    found = {"file": str(path), "rows": rows, "size_bytes": size_bytes, "left_out": left_out}
    _say(arguments, found, f"{path}: {rows} rows, {format_bytes(size_bytes)}", sys.stdout)
    return 0


def _format_of(path: Path | None) -> str:
    ending = "csv" if path is None else path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigurationError(f"--to {path}: its ending names the format, and is neither .csv nor .parquet")
    return ending


def _chosen(
    arguments: argparse.Namespace, settings: Settings, tables: Tables
) -> tuple[pa.Schema, Iterator[pa.RecordBatch], tuple[str, ...]]:
    if arguments.what == _MODEL:
        if arguments.batch is not None:
            raise ConfigurationError("--batch does not apply to a model: omit it")
        model_id = chosen_model(tables, settings.backbone.id, arguments.model)
        return MODEL_SCHEMA, chunks_of_model(read_model(tables.warehouse, model_id)), ()
    (table,) = (table for table in TABLES if table.name == arguments.what)
    selection = select(tables, settings, table, arguments.batch, arguments.model)
    return arrow_schema(table, with_partitions=True), chunks_of(tables, selection), selection.left_out


def _say(arguments: argparse.Namespace, found: dict[str, object], words: str, stream: IO[str]) -> None:
    print(json.dumps(found) if arguments.json else words, file=stream)
