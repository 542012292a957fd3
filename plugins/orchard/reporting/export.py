"""Export rows of the tables, or a model's vectors, to CSV or Parquet: streaming, whole or not at all.

In CSV a vector becomes one column for each value (`features_0`, `features_1`, ...), so that `pandas.read_csv` gives floats; every
other list becomes JSON text. A text that a spreadsheet would take for a formula gets an apostrophe in front.
Parquet keeps the tables' own types and texts.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.parquet import open_parquet
from orchard_jobs.schemas import arrow_schema

from orchard.models.kinds import KINDS, PCA, Kind
from orchard.models.model import Model, current_promotion, known_model
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import CommitState, Tables
from orchard.tables.delta_log import TableFile

FORMATS = ("csv", "parquet")
VECTORS = ("features", "pca_features", "loadings")
# What begins a formula in a spreadsheet, also after its own trimming.
_FORMULA = "^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
# 1,024 rows of 2,048 floats are 8 MB; in CSV three times that.
_ROWS_PER_CHUNK = 1024
MODEL_SCHEMA = pa.schema(
    [
        ("vector", pa.string()),
        ("explained_variance", pa.float64()),
        ("explained_variance_ratio", pa.float64()),
        ("loadings", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True)
class Selection:
    """What to export of one table.

    Attributes:
        table: the table.
        files: the files that hold the rows, in the order of the export.
        left_out: published batches of which the table holds no row of the current version.
    """

    table: Table
    files: tuple[TableFile, ...]
    left_out: tuple[str, ...] = ()


def select(tables: Tables, settings: Settings, table: Table, batch_id: str | None, model_id: str | None) -> Selection:
    """Return what to export of a table.

    Of a table that is partitioned by batch, these are the rows of the current batch versions under the settings' backbone. Of a
    table that holds rows of models, they are one model's, by default the current one's. Of any other table, they are all rows.

    Raises:
        ConfigurationError: the table has no such column to choose by, or no such batch or model is published.
    """
    if batch_id is not None and "batch_id" not in table.partition_by:
        raise ConfigurationError(f"--batch does not apply to {table.name}: omit it")
    kind = next((one for one in KINDS if one.rows is table), None)
    if model_id is not None and kind is None:
        names = ", ".join(one.rows.name for one in KINDS)
        raise ConfigurationError(f"--model does not apply to {table.name}: omit it, or export {names} or model")
    if not table.partition_by:
        return Selection(table, tuple(tables.load(table).files()))
    versions = BatchVersions.load(tables, settings.backbone.id, batch_id)
    if batch_id is not None and not versions.current:
        raise ConfigurationError(
            f"batch {batch_id!r} was never published with {settings.backbone.id}: `orchard status` lists the batches"
        )
    if table is RUNS:
        return Selection(
            table,
            tuple(file for batch in versions.current for file in versions.runs.files(backbone=versions.backbone, batch_id=batch)),
        )
    if table in (FEATURES, QUARANTINE):
        of_batch = versions.features_files if table is FEATURES else versions.quarantine_files
        return Selection(table, tuple(file for batch in versions.current for file in of_batch(batch)))
    scope = chosen_model(tables, settings.backbone.id, model_id, kind) if kind else settings.backbone.id
    return _scoped(tables, table, versions, scope)


def _scoped(tables: Tables, table: Table, versions: BatchVersions, scope: str) -> Selection:
    """Return the files under a model's or a backbone's key, of each batch whose current version the table holds.

    Where `pca_features` is ahead of `runs` already, its files are those of the table version that the `runs` row names.
    """
    newest, files, left_out = tables.load(table), list[TableFile](), list[str]()
    for batch_id, version in versions.current.items():
        is_there = version.change(scope).state_in(newest) is CommitState.DONE
        number = None if is_there else _pca_version(tables, versions, batch_id, scope)
        if is_there or number is not None:
            holder = newest if is_there else tables.load(table, number)
            files += holder.files(**{table.partition_by[0]: scope, "batch_id": batch_id})
        else:
            left_out.append(batch_id)
    return Selection(table, tuple(files), tuple(left_out))


def _pca_version(tables: Tables, versions: BatchVersions, batch_id: str, model_id: str) -> int | None:
    """Return the version of `pca_features` that the batch's `runs` row names for a model, or None when it names none."""
    digest = versions.current[batch_id].manifest_digest
    files = versions.runs.files(backbone=versions.backbone, batch_id=batch_id)
    for row in tables.rows_of(files, ("manifest_digest", "model_id", "pca_version")):
        if (row["manifest_digest"], row["model_id"]) == (digest, model_id):
            number: int | None = row["pca_version"]
            return number
    return None


def chosen_model(tables: Tables, backbone: str, model_id: str | None, kind: Kind = PCA) -> str:
    """Return the id of the named model of a kind, or the current one's.

    Raises:
        ConfigurationError: there is no such model, it is another backbone's, or there is no model yet.
    """
    if model_id is None:
        promotion = current_promotion(tables, backbone, kind)
        if promotion is None:
            raise ConfigurationError(f"there is no model of kind {kind.name} of {backbone} yet: run {kind.dag_id} first")
        return promotion.model_id
    return known_model(tables, backbone, model_id, (kind,))[0]


def chunks_of(tables: Tables, selection: Selection) -> Iterator[pa.RecordBatch]:
    """Yield the selected rows in the table's schema, partition columns among them, never more than 1,024 at once."""
    table = selection.table
    schema = arrow_schema(table, with_partitions=True)
    for file in selection.files:
        with open_parquet(tables.warehouse, file.path, is_whole=True) as opened:
            for rows in opened.iter_batches(_ROWS_PER_CHUNK, columns=list(table.column_names)):
                # What the files do not hold: the partition's values, and columns that are younger than the file.
                values = dict.fromkeys(schema.names) | dict(file.partition)
                kept = {name: rows.column(name) for name in rows.schema.names}
                columns = [
                    kept[name] if name in kept else pa.repeat(pa.scalar(values[name]), rows.num_rows) for name in schema.names
                ]
                cast = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(cast, schema=schema)


def chunks_of_model(model: Model) -> Iterator[pa.RecordBatch]:
    """Yield a model as rows: its mean, then its components in their order, each with as many loadings as the backbone has."""
    basis = model.basis
    rows: list[dict[str, Any]] = [{"vector": "mean", "loadings": basis.mean}]
    shares = zip(basis.components, basis.explained_variance, basis.explained_variance_ratio, strict=True)
    for number, (loadings, variance, ratio) in enumerate(shares, start=1):
        row = {"vector": f"component_{number}", "explained_variance": variance, "explained_variance_ratio": ratio}
        rows.append(row | {"loadings": loadings})
    yield pa.RecordBatch.from_pylist(rows, MODEL_SCHEMA)


def write_raw_csv(chunks: Iterable[pa.RecordBatch], schema: pa.Schema, file: IO[bytes]) -> int:
    """Write chunks of a schema as CSV with a head, each text as it is; return the number of rows.

    Raises:
        JobError: two vectors of one column have different lengths.
    """
    writer, rows, lengths = None, 0, dict.fromkeys(VECTORS, 0)
    # Closed at last in any case: it holds a buffer.
    try:
        for chunk in chunks:
            if writer is None:
                lengths = {name: len(chunk.column(name)[0]) for name in chunk.schema.names if name in VECTORS}
            flat = _flat(chunk, lengths)
            writer = writer or pa_csv.CSVWriter(file, flat.schema)
            writer.write_batch(flat)
            rows += chunk.num_rows
        if writer is None:
            writer = pa_csv.CSVWriter(file, _flat(pa.RecordBatch.from_pylist([], schema), lengths).schema)
    finally:
        if writer is not None:
            writer.close()
    return rows


def write_csv(chunks: Iterable[pa.RecordBatch], schema: pa.Schema, file: IO[bytes]) -> int:
    """Write CSV as `write_raw_csv` does, but no text that a spreadsheet would take for a formula."""
    return write_raw_csv(map(_without_formulas, chunks), schema, file)


def _without_formulas(chunk: pa.RecordBatch) -> pa.RecordBatch:
    columns = [_guarded(column) if pa.types.is_string(column.type) else column for column in chunk.columns]
    return pa.RecordBatch.from_arrays(columns, schema=chunk.schema)


def _guarded(column: pa.Array) -> pa.Array:
    guarded = pc.binary_join_element_wise("'", column, "")
    return pc.if_else(pc.match_substring_regex(column, _FORMULA), guarded, column)


def write_parquet(chunks: Iterable[pa.RecordBatch], schema: pa.Schema, file: IO[bytes]) -> int:
    """Write chunks of a schema as Parquet; return the number of rows."""
    rows = 0
    with pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        for chunk in chunks:
            writer.write_batch(chunk)
            rows += chunk.num_rows
    return rows


@contextmanager
def whole_file(path: Path, is_replaced: bool) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only when the block ends well; otherwise nothing is left of it.

    Raises:
        ConfigurationError: the file is there and may not be replaced, or its folder is not there.
    """
    _check_free(path, is_replaced)
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _check_free(path, is_replaced)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check_free(path: Path, is_replaced: bool) -> None:
    if not path.parent.is_dir():
        raise ConfigurationError(f"the folder {path.parent} is not there: make it, or name another file")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in it")
    if path.exists() and not is_replaced:
        raise ConfigurationError(f"{path} is there: name another file, or replace it with --force")


def _flat(chunk: pa.RecordBatch, lengths: dict[str, int]) -> pa.RecordBatch:
    names: list[str] = []
    columns: list[pa.Array] = []
    for field, column in zip(chunk.schema, chunk.columns, strict=True):
        if field.name in VECTORS:
            length = lengths[field.name]
            names += [f"{field.name}_{index}" for index in range(length)]
            columns += _values(field.name, column, length)
        else:
            names.append(field.name)
            columns.append(_as_json(column) if pa.types.is_list(field.type) else column)
    return pa.RecordBatch.from_arrays(columns, names=names)


def _values(name: str, column: pa.Array, length: int) -> Sequence[pa.Array]:
    flat = column.flatten()
    if len(flat) != len(column) * length or set(column.value_lengths().to_pylist()) - {length}:
        raise JobError(f"the vectors of {name} have other lengths than {length}: export them as Parquet")
    matrix = flat.to_numpy(zero_copy_only=False).reshape(len(column), length)
    return [pa.array(matrix[:, index].copy()) for index in range(length)]


def _as_json(column: pa.Array) -> pa.Array:
    return pa.array([None if value is None else json.dumps(value) for value in column.to_pylist()], pa.string())
