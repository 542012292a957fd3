"""Files of a warehouse that are damaged for a while."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from orchard_jobs.storage import Warehouse


@contextmanager
def overwritten(warehouse: Warehouse, path: str) -> Iterator[None]:
    """Overwrite a file with as many zeros for the length of a block."""
    content = warehouse.read(path)
    warehouse.rewrite(path, bytes(len(content)))
    try:
        yield
    finally:
        warehouse.rewrite(path, content)


@contextmanager
def stretched(warehouse: Warehouse, path: str) -> Iterator[None]:
    """Double the components of a model's file for the length of a block, so that they are no longer of length 1."""
    content = warehouse.read(path)
    model = pq.read_table(io.BytesIO(content))
    index = model.schema.get_field_index("components")
    twice = pa.array([[2 * value for value in row] for row in model["components"].to_pylist()], model.schema.field(index).type)
    packed = io.BytesIO()
    pq.write_table(model.set_column(index, model.schema.field(index), twice), packed)
    warehouse.rewrite(path, packed.getvalue())
    try:
        yield
    finally:
        warehouse.rewrite(path, content)
