"""Arrow schemas of the tables, and what other writers may call a list's element."""

import pyarrow as pa
import pytest
from orchard_jobs.contract.columns import FEATURES, MODELS, TABLES, Table
from orchard_jobs.schemas import arrow_schema, schema_differences


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_has_a_schema_of_its_own_columns(table: Table) -> None:
    schema = arrow_schema(table)
    assert tuple(schema.names) == table.column_names
    assert [field.nullable for field in schema] == [column.is_nullable for column in table.columns]
    assert schema_differences(schema, table) == []
    assert arrow_schema(table, with_partitions=True).names == [*table.column_names, *table.partition_by]


def test_types_are_those_that_spark_writes() -> None:
    schema = arrow_schema(FEATURES, with_partitions=True)
    assert schema.field("uploaded_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("features").type == pa.list_(pa.field("element", pa.float32()))
    assert schema.field("features").type.value_field.name == "element"
    assert schema.field("batch_id") == pa.field("batch_id", pa.string(), nullable=False)
    merged_from = arrow_schema(MODELS).field("merged_from").type
    assert merged_from.value_type.names == ["batch_id", "manifest_digest"]


@pytest.mark.parametrize("element", [pa.field("item", pa.float32()), pa.field("array", pa.float32(), nullable=False)])
def test_names_of_list_elements_and_nullability_are_not_compared(element: pa.Field) -> None:
    schema = arrow_schema(FEATURES).set(8, pa.field("features", pa.list_(element), nullable=True))
    assert schema_differences(schema, FEATURES) == []


def test_a_struct_of_other_fields_differs() -> None:
    other = pa.list_(pa.struct([("batch_id", pa.string()), ("manifest", pa.string())]))
    at = MODELS.column_names.index("merged_from")
    (text,) = schema_differences(arrow_schema(MODELS).set(at, pa.field("merged_from", other)), MODELS)
    assert text.startswith("merged_from is list<")


def test_a_lost_column_is_named() -> None:
    (text,) = schema_differences(arrow_schema(FEATURES).remove(4), FEATURES)
    assert "uploaded_at, label" in text
