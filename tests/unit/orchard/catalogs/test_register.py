"""register: what a catalog is told of the tables, what it is not made to forget, and what is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import boto3
import pytest
from databricks.sdk.service.catalog import ColumnInfo, ColumnTypeName, DataSourceFormat, TableType
from deltalake import DeltaTable
from orchard.catalogs.entries import CatalogEntry
from orchard.cli import main
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import CAPTURED, FEATURES, MODELS, TABLES
from support.catalogs import DATABASE, TO_GLUE, TO_UNITY, WAREHOUSE
from support.databricks_files import TOKEN
from support.databricks_tables import UnityServer

FEATURES_AT = f"{WAREHOUSE}/features"
Out = pytest.CaptureFixture[str]


def states(capsys: Out) -> dict[str, str]:
    """Return the state of each table by its name, of a run with --json."""
    return {table["name"]: table["state"] for table in json.loads(capsys.readouterr().out)["tables"]}


def in_glue(client: Any, name: str = "features") -> dict[str, Any]:
    found: dict[str, Any] = client.get_table(DatabaseName=DATABASE, Name=name)["Table"]
    return found


def test_the_columns_are_those_of_the_delta_log(tables: Tables) -> None:
    for table in TABLES:
        tables.log.create(table)
        log = DeltaTable(f"{WAREHOUSE}/{table.name}", storage_options={"AWS_ALLOW_HTTP": "true"})
        assert CatalogEntry(table, "").fields == json.loads(log.schema().to_json())["fields"]


SPELLED = {
    "label": "string",
    "width": "int",
    "size_bytes": "bigint",
    "uploaded_at": "timestamp",
    "features": "array<float>",
    "mean": "array<double>",
    "job_ids": "array<string>",
    "is_held": "boolean",
    "gain": "double",
    "merged_from": "array<struct<batch_id:string,manifest_digest:string>>",
}


def test_types_are_spelled_as_hive_and_spark_do() -> None:
    entries = [CatalogEntry(table, "") for table in TABLES]
    found = {(field["name"], kind) for entry in entries for field, (_, kind) in zip(entry.fields, entry.columns, strict=True)}
    assert found >= set(SPELLED.items())
    assert {kind for _, kind in found if "<" not in kind} == {"string", "int", "bigint", "timestamp", "boolean", "double"}


def test_glue_gets_a_table_that_athena_spark_and_trino_take_for_delta(glue: Any, capsys: Out) -> None:
    assert main(TO_GLUE) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"created   {DATABASE}.features  {FEATURES_AT}",
        f"created   {DATABASE}.runs  {WAREHOUSE}/runs",
    ]
    found = in_glue(glue)
    assert found["TableType"] == "EXTERNAL_TABLE"
    assert found["Parameters"] == {"table_type": "DELTA", "spark.sql.sources.provider": "delta", "EXTERNAL": "TRUE"}
    assert found["PartitionKeys"] == []
    storage = found["StorageDescriptor"]
    assert (storage["Location"], storage["SerdeInfo"]["Parameters"]["path"]) == (FEATURES_AT, FEATURES_AT)
    columns = [(column["Name"], column["Type"]) for column in storage["Columns"]]
    assert columns == CatalogEntry(FEATURES, "").columns
    assert columns[-2:] == [("backbone", "string"), ("batch_id", "string")]


def test_a_second_run_changes_nothing_and_says_so(glue: Any, unity: UnityServer, capsys: Out) -> None:
    for to in (TO_GLUE, TO_UNITY):
        assert main(to) == 0
    before, created = [in_glue(glue, "features"), in_glue(glue, "runs")], unity.created
    for to in (TO_GLUE, TO_UNITY):
        capsys.readouterr()
        assert main(to) == 0
        lines = capsys.readouterr().out.splitlines()
        assert ([line.split()[0] for line in lines[:-1]], lines[-1]) == (["there", "there"], "nothing was changed")
    assert [in_glue(glue, "features"), in_glue(glue, "runs")] == before
    assert unity.created == created == 2


def test_a_dry_run_changes_nothing(glue: Any, unity: UnityServer, capsys: Out) -> None:
    assert main([*TO_GLUE, "--dry-run", "--json"]) == 0
    assert states(capsys) == {f"{DATABASE}.features": "missing", f"{DATABASE}.runs": "missing"}
    assert main([*TO_UNITY, "--dry-run", "--json"]) == 0
    assert states(capsys) == {"main.ml.features": "missing", "main.ml.runs": "missing"}
    assert glue.get_tables(DatabaseName=DATABASE)["TableList"] == []
    assert unity.tables == {}


def test_an_outdated_entry_in_glue_is_updated_and_keeps_what_others_wrote(glue: Any, capsys: Out) -> None:
    storage = {
        "Location": f"{WAREHOUSE}/-__PLACEHOLDER__",
        "SerdeInfo": {"Parameters": {"path": "s3a://cluster/warehouse/features/"}},
    }
    theirs = {"Name": "features", "TableType": "EXTERNAL_TABLE", "Description": "ours", "StorageDescriptor": storage}
    parameters = {"spark.sql.sources.provider": "DELTA", "team": "vision"}
    glue.create_table(DatabaseName=DATABASE, TableInput=theirs | {"Parameters": parameters})
    assert main([*TO_GLUE, "--dry-run", "--json"]) == 0
    assert states(capsys)[f"{DATABASE}.features"] == "outdated"
    assert main([*TO_GLUE, "--json"]) == 0
    assert states(capsys) == {f"{DATABASE}.features": "updated", f"{DATABASE}.runs": "created"}
    found = in_glue(glue)
    assert (found["Description"], found["Parameters"]["team"], found["Parameters"]["table_type"]) == ("ours", "vision", "DELTA")
    assert found["StorageDescriptor"]["Location"] == FEATURES_AT
    assert main([*TO_GLUE, "--json"]) == 0
    assert set(states(capsys).values()) == {"there"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Parameters": {"classification": "parquet"}}, "already exists and is not an external Delta table"),
        ({"Parameters": {"table_type": "ICEBERG", "spark.sql.sources.provider": "delta"}}, "not an external Delta table"),
        ({"TableType": "MANAGED_TABLE"}, "already exists and is not an external Delta table"),
        (
            {"StorageDescriptor": {"Location": "s3://cluster/other"}},
            f"already exists in s3://cluster/other, not in {WAREHOUSE}/runs",
        ),
    ],
)
def test_glue_keeps_another_table_of_the_name(glue: Any, changes: dict[str, Any], words: str, capsys: Out) -> None:
    runs = {"Name": "runs", "TableType": "EXTERNAL_TABLE", "Parameters": {"table_type": "DELTA"}}
    glue.create_table(DatabaseName=DATABASE, TableInput=runs | {"StorageDescriptor": {"Location": f"{WAREHOUSE}/runs"}} | changes)
    before = in_glue(glue, "runs")
    assert main(TO_GLUE) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"orchard: {DATABASE}.runs already exists ")
    assert words in err
    assert [table["Name"] for table in glue.get_tables(DatabaseName=DATABASE)["TableList"]] == ["runs"]
    assert in_glue(glue, "runs") == before


def test_unity_gets_an_external_delta_table(unity: UnityServer, capsys: Out) -> None:
    assert main([*TO_UNITY, "--json"]) == 0
    assert states(capsys) == {"main.ml.features": "created", "main.ml.runs": "created"}
    found = unity.tables["main.ml.features"]
    assert (found.table_type, found.data_source_format) == (TableType.EXTERNAL, DataSourceFormat.DELTA)
    assert found.storage_location == FEATURES_AT
    columns = {column.name: column for column in found.columns or []}
    assert list(columns) == [name for name, _ in CatalogEntry(FEATURES, "").columns]
    assert columns["features"] == ColumnInfo(
        name="features",
        type_text="array<float>",
        type_name=ColumnTypeName.ARRAY,
        type_json='{"name": "features", "type": {"type": "array", "elementType": "float", "containsNull": true}, '
        '"nullable": false, "metadata": {}}',
        position=8,
        nullable=False,
    )
    kinds = [columns[name].type_name for name in ("width", "size_bytes", "uploaded_at", "label")]
    assert kinds == [ColumnTypeName.INT, ColumnTypeName.LONG, ColumnTypeName.TIMESTAMP, ColumnTypeName.STRING]
    assert [columns[name].partition_index for name in ("label", "backbone", "batch_id")] == [None, 0, 1]


@pytest.mark.parametrize("table", [MODELS, CAPTURED])
def test_unity_takes_every_type(unity: UnityServer, tables: Tables, table: Any) -> None:
    tables.log.create(table)
    assert main(TO_UNITY) == 0
    found = unity.tables[f"main.ml.{table.name}"]
    assert [(column.name, column.type_text) for column in found.columns or []] == CatalogEntry(table, "").columns


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table_type": TableType.MANAGED}, "not an external Delta table"),
        ({"data_source_format": DataSourceFormat.PARQUET}, "not an external Delta table"),
        ({"storage_location": "s3://cluster/other"}, "already exists in s3://cluster/other, not in"),
        ({"columns": []}, "run MSCK REPAIR TABLE main.ml.runs SYNC METADATA"),
    ],
)
def test_unity_keeps_another_table_of_the_name(unity: UnityServer, changes: dict[str, Any], words: str, capsys: Out) -> None:
    assert main(TO_UNITY) == 0
    del unity.tables["main.ml.features"]
    other = unity.tables["main.ml.runs"] = replace(unity.tables["main.ml.runs"], **changes)
    assert main(TO_UNITY) == 2
    assert words in capsys.readouterr().err
    assert unity.tables == {"main.ml.runs": other}


@pytest.mark.parametrize(
    ("owner", "name", "root"),
    [
        ("catalog", "storage_root", WAREHOUSE),
        ("catalog", "storage_location", "s3://cluster/"),
        ("schema", "storage_root", "s3a://cluster/warehouse/"),
        ("schema", "storage_location", FEATURES_AT),
    ],
)
def test_a_place_that_unity_manages_is_refused(unity: UnityServer, owner: str, name: str, root: str, capsys: Out) -> None:
    setattr(unity, owner, replace(getattr(unity, owner), **{name: root}))
    assert main(TO_UNITY) == 2
    assert ", the managed storage of main" in capsys.readouterr().err
    assert unity.tables == {}


def test_a_place_beside_what_unity_manages_is_taken(unity: UnityServer) -> None:
    unity.catalog, unity.schema = replace(unity.catalog, storage_root="s3://cluster/ware"), replace(unity.schema, storage_root="")
    assert main(TO_UNITY) == 0


def test_a_folder_of_unitys_own_is_refused(unity: UnityServer, monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    managed = "s3://cluster/x/__unitystorage/schemas/1"
    Tables.at(managed).log.create(FEATURES)
    monkeypatch.setenv("ORCHARD_WAREHOUSE", managed)
    assert main(TO_UNITY) == 2
    assert "it is a folder of Unity's own, for tables that Databricks alone writes" in capsys.readouterr().err


@pytest.mark.parametrize("to", [TO_GLUE, TO_UNITY])
def test_a_warehouse_on_a_disk_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, to: list[str], capsys: Out
) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    assert main(to) == 2
    assert "is on a disk" in capsys.readouterr().err


def test_airflow_connections_log_in(
    glue: Any, unity: UnityServer, glue_address: str, monkeypatch: pytest.MonkeyPatch, tables: Tables
) -> None:
    """In processes of their own: Airflow sets up logging for the process at its first import."""
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    # The warehouse is always reached by the environment; Glue is not there.
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", "http://127.0.0.1:1")
    ours = {
        "conn_type": "aws",
        "login": "any",
        "password": "thing",
        "extra": {"service_config": {"glue": {"endpoint_url": glue_address}}},
    }
    host, port = unity.address.rsplit(":", 1)
    dbx = {"conn_type": "databricks", "host": host, "schema": "http", "port": int(port), "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_OURS", json.dumps(ours))
    monkeypatch.setenv("AIRFLOW_CONN_DBX", json.dumps(dbx))
    for to, connection in ((TO_GLUE, "ours"), (TO_UNITY, "dbx")):
        command = [sys.executable, "-m", "orchard.cli", *to, "--connection", connection, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {table["state"] for table in json.loads(done.stdout)["tables"]} == {"created"}
    assert in_glue(boto3.client("glue", endpoint_url=glue_address))["TableType"] == "EXTERNAL_TABLE"
    assert set(unity.tables) == {"main.ml.features", "main.ml.runs"}
