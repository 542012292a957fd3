"""The tables' columns as Arrow schemas, and whether a file's schema is a table's."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchard_jobs.contract.columns import Column, Table


def _list_of(element: pa.DataType) -> pa.DataType:
    # Spark names a list's element so, and marks it nullable whatever it holds; that none is null is a check on the rows.
    return pa.list_(pa.field("element", element))


_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list<float32>": _list_of(pa.float32()),
    "list<float64>": _list_of(pa.float64()),
    "list<string>": _list_of(pa.string()),
    "list<int64>": _list_of(pa.int64()),
    "list<struct<batch_id, manifest_digest>>": _list_of(
        pa.struct([pa.field("batch_id", pa.string()), pa.field("manifest_digest", pa.string())])
    ),
    "list<struct<label, class>>": _list_of(pa.struct([pa.field("label", pa.string()), pa.field("class", pa.string())])),
    "list<struct<class, rows>>": _list_of(pa.struct([pa.field("class", pa.string()), pa.field("rows", pa.int64())])),
    "list<struct<class, predicted, rows>>": _list_of(
        pa.struct([pa.field("class", pa.string()), pa.field("predicted", pa.string()), pa.field("rows", pa.int64())])
    ),
}


def arrow_schema(table: Table, with_partitions: bool = False) -> pa.Schema:
    """Return the schema of a table's files; with its partition columns (strings, at the end) that of the table."""
    partitions = [Column(name, "string") for name in table.partition_by] if with_partitions else []
    columns = [*table.columns, *partitions]
    return pa.schema([pa.field(column.name, _TYPES[column.type], column.is_nullable) for column in columns])


def row_identity(etags: Any, uris: Any) -> Any:
    """Return what distinguishes a batch's rows: columns of ETags and URIs, null where one is null, as one column.

    An ETag holds no line break, so two pairs never give one value.
    """
    joined: Callable[..., Any] = pc.binary_join_element_wise
    return joined(etags, uris, "\n")


def schema_differences(found: pa.Schema, table: Table) -> list[str]:
    """Return how a file's schema differs from a table's: columns and their order, and types.

    Types are compared without the names of list elements and without nullability, because Spark and pyarrow differ in both. Nulls
    are looked for in the rows.
    """
    expected = arrow_schema(table)
    if found.names != expected.names:
        return [f"columns are {', '.join(found.names)}, not {', '.join(expected.names)}"]
    return [
        f"{field.name} is {found.field(field.name).type}, not {field.type}"
        for field in expected
        if not _is_alike(found.field(field.name).type, field.type)
    ]


def _is_alike(one: pa.DataType, other: pa.DataType) -> bool:
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _is_alike(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return [field.name for field in one] == [field.name for field in other] and all(
            _is_alike(mine.type, its.type) for mine, its in zip(one, other, strict=True)
        )
    return bool(one == other)
