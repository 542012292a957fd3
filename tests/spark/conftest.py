"""One Spark session, one exported backbone and one warehouse a session: each costs seconds.

With SPARK_REMOTE=local[2,4] in the environment the session is one of Spark Connect, as pyspark itself reads it.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyspark
import pytest
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.local_spark import class_archive_of, local_spark_conf
from orchard_jobs.session import session
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from pyspark.sql import SparkSession


def pytest_configure(config: pytest.Config) -> None:
    if pyspark.__version__ < "4":  # whose own code does these
        config.addinivalue_line("filterwarnings", "ignore:distutils Version classes are deprecated:DeprecationWarning")
        config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # A session of Spark Connect could not set these, and names no master.
    conf = local_spark_conf(str(class_archive_of(Path(sys.prefix))))
    options = [f"--conf {shlex.quote(f'{key}={value}')}" for key, value in conf.items()]
    options += [] if "SPARK_REMOTE" in os.environ else ["--master local[2,4]"]
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join([*options, "pyspark-shell"])
    with session("orchard tests") as made:
        yield made


@pytest.fixture(scope="session")
def workers(spark: SparkSession) -> Workers:
    return Workers(spark)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return backbone_named("efficientnet_lite0")


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Warehouse:
    """A warehouse whose backbone was prepared as a launcher does it, in a process of its own."""
    root = Warehouse.at(str(tmp_path_factory.mktemp("warehouse")))
    # The environment of another Spark has no TensorFlow.
    python = Path(sys.prefix).with_name("jobs") / "bin" / "python"
    command = [str(python), "-m", "orchard_jobs.cli", "prepare", "--warehouse", root.uri]
    subprocess.run([*command, "--backbone", json.dumps(asdict(backbone))], check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")
