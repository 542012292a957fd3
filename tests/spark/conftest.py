"""One Spark session, one exported network and one warehouse a session: each costs seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.session import open_session
from orchard_jobs.storage import Warehouse
from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config(
        "spark.driver.bindAddress", "127.0.0.1"
    ).config("spark.driver.host", "127.0.0.1").config(
        "spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    ).getOrCreate()
    session = open_session("orchard tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return backbone_named("efficientnet_lite0")


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Warehouse:
    """A warehouse whose backbone was prepared as a launcher does it, in a process of its own."""
    root = Warehouse.at(str(tmp_path_factory.mktemp("warehouse")))
    command = [sys.executable, "-m", "orchard_jobs.cli", "prepare", "--warehouse", root.uri]
    subprocess.run([*command, "--backbone", json.dumps(asdict(backbone))], check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")
