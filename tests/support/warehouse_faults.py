"""Files of a warehouse that are damaged for a while."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import TABLES
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.storage import Warehouse


def damage_staged(tables: Tables, report: JobReport) -> bool:
    """Overwrite a file of a report that no table names; tell whether there was one."""
    named = {file.path for table in TABLES for file in tables.load(table).files()}
    staged = [file for part in report.partitions for file in part.files if file.path not in named]
    for file in staged[:1]:
        tables.warehouse.rewrite(file.path, bytes(file.size_bytes))
    return bool(staged)


@contextmanager
def overwritten(warehouse: Warehouse, path: str) -> Iterator[None]:
    """Overwrite a file with as many zeros for the length of a block."""
    content = warehouse.read(path)
    warehouse.rewrite(path, bytes(len(content)))
    try:
        yield
    finally:
        warehouse.rewrite(path, content)


def stretch(warehouse: Warehouse, path: str) -> None:
    """Double the components of a model's file, so that they are no longer of length 1."""
    model = pq.read_table(io.BytesIO(warehouse.read(path)))
    index = model.schema.get_field_index("components")
    twice = pa.array([[2 * value for value in row] for row in model["components"].to_pylist()], model.schema.field(index).type)
    packed = io.BytesIO()
    pq.write_table(model.set_column(index, model.schema.field(index), twice), packed)
    warehouse.rewrite(path, packed.getvalue())


@contextmanager
def stretched(warehouse: Warehouse, path: str) -> Iterator[None]:
    """Stretch a model's file for the length of a block."""
    content = warehouse.read(path)
    stretch(warehouse, path)
    try:
        yield
    finally:
        warehouse.rewrite(path, content)
