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
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.columns import MODELS
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import ManifestHead, ModelReference
from orchard_jobs.local_spark import class_archive_of, local_spark_conf
from orchard_jobs.pca.fit import Spectrum
from orchard_jobs.pca.moments import Moments
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.session import session
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from orchard_sandbox.stack.samples import draw_samples
from pyspark.sql import SparkSession
from support.featurized import run_featurize
from support.local_manifests import entry_of, freeze, rows_of


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


@pytest.fixture(scope="session")
def batch(images: Path) -> list[Path]:
    """One day of the drawn samples: fruit of six labels, a broken file, a duplicate, a CMYK and a 1x1 image among them."""
    draw_samples(images / "sample")
    day = min((images / "sample").iterdir())
    return sorted(path for path in day.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def first(workers: Workers, warehouse: Warehouse, backbone: Backbone, batch: list[Path]) -> tuple[ManifestHead, JobReport]:
    head = freeze(warehouse, backbone, [entry_of(path) for path in batch])
    return head, run_featurize(workers, warehouse, head)


@pytest.fixture(scope="session")
def model(warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> ModelReference:
    vectors = np.array([row["features"] for row in rows_of(warehouse, first[1], "features")], dtype=np.float32)
    moments = Moments.of(vectors)
    basis = Spectrum.of(moments).fit(5)
    assert basis is not None
    row = {
        "model_id": "pca-test",
        "backbone": first[0].backbone.id,
        "k": basis.k_used,
        "n": moments.n,
        "mean": basis.mean,
        "components": basis.components.ravel(),
        "explained_variance": basis.explained_variance,
        "explained_variance_ratio": basis.explained_variance_ratio,
        "merged_from": [],
        "second_moment": moments.upper_triangle,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(MODELS)])
    folder = Path(warehouse.uri.removeprefix("file://")) / "models"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row], schema), folder / "model.parquet")
    return ModelReference("pca-test", "models/model.parquet", basis.k_used)
