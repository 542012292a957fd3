"""Two of the tables in S3, and the two catalogs."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, RUNS
from support.catalogs import DATABASE, WAREHOUSE
from support.databricks_files import TOKEN
from support.databricks_tables import UnityServer, serve_unity
from support.moto_server import moto_server


@pytest.fixture
def tables(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Two of the tables, in S3: what is not there is left out."""
    monkeypatch.setenv("ORCHARD_WAREHOUSE", WAREHOUSE)
    tables = Tables.at(WAREHOUSE)
    tables.log.create(FEATURES)
    tables.log.create(RUNS)
    return tables


@pytest.fixture(scope="session")
def glue_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("glue")) as address:
        yield address


@pytest.fixture
def glue(tables: Tables, glue_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", glue_address)
    client = boto3.client("glue")
    client.create_database(DatabaseInput={"Name": DATABASE})
    yield client
    client.delete_database(Name=DATABASE)


@pytest.fixture
def unity(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnityServer]:
    with serve_unity() as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.address)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield server
