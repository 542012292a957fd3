"""A warehouse, its tables and settings with a small backbone, so that a fit takes milliseconds; and AWS's stand-in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import Backbone, backbone_named
from support.changed_settings import switch_backbone, with_variables
from support.emr_stand_in import JOBS, wait_until
from support.faked_flow import run_model
from support.published_batches import DAYS, publish_days
from support.repository import ROOT

DIMENSION = 8


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    small = replace(backbone_named("efficientnet_lite0"), dimension=DIMENSION)
    switch_backbone(monkeypatch, small)
    return Settings.from_environment({"ORCHARD_WAREHOUSE": f"{tmp_path}/warehouse", "ORCHARD_COMPONENTS": "3"})


@pytest.fixture
def backbone(settings: Settings) -> Backbone:
    return settings.backbone


@pytest.fixture
def tables(settings: Settings) -> Tables:
    tables = Tables.at(settings.warehouse)
    tables.create_all()
    return tables


@pytest.fixture
def no_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget every log-in that this machine has."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "DATABRICKS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The S3 stand-in, a process of its own."""
    folder = tmp_path_factory.mktemp("s3")
    address = folder / "address"
    command = [sys.executable, "-m", "orchard_sandbox.aws_stand_in", "--folder", str(folder / "landing")]
    command += ["--python", str(JOBS / "python"), "--work", str(folder / "work")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "sandbox"), "AWS_SECRET_ACCESS_KEY": "thing"}
    process = subprocess.Popen([*command, "--address-file", str(address)], env=environment)
    wait_until(lambda: address.exists() or process.poll() is not None)
    yield address.read_text()
    process.terminate()
    process.wait(120)


@pytest.fixture
def s3(s3_address: str, no_cloud: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket `cluster`, and the environment that reaches it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ACCESS_KEY_ID": "orchard",
        "AWS_SECRET_ACCESS_KEY": "thing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="cluster")
    for item in client.list_objects_v2(Bucket="cluster").get("Contents", []):
        client.delete_object(Bucket="cluster", Key=item["Key"])
    return client


@pytest.fixture
def always(settings: Settings) -> Settings:
    """Settings under which any gain makes pca_model refit."""
    return with_variables(settings, ORCHARD_REFIT_GAIN=0.0)


@pytest.fixture
def models(tables: Tables, always: Settings) -> tuple[str, str]:
    """Two models: the first of one batch, the second, now current, of two."""
    found = []
    for day in DAYS[:2]:
        publish_days(tables, always, day)
        fitted = run_model(tables, always, day)
        assert fitted.action == "fit"
        assert fitted.model_id is not None
        found.append(fitted.model_id)
    return found[0], found[1]
