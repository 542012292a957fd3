"""What the stand-in of a target needs before a job can be submitted: the deployed package, and what it is deployed to."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.landing import ACCOUNT, REGION
from orchard_sandbox.layout import Layout

JOBS_BUCKET = "jobs"
VOLUME = "/Volumes/main/orchard/jobs"


def target_settings(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Airflow needs beside for the environment's target, after making what they name.

    Raises:
        SandboxError: the package could not be built or uploaded.
    """
    makers = {"emr_serverless": _emr_serverless, "emr": _emr, "databricks": _databricks}
    return makers[environment["ORCHARD_TARGET"]](layout, environment)


def make_bucket(environment: Mapping[str, str]) -> None:
    """Make the bucket of a warehouse in S3 on the stand-in, unless it is there."""
    scheme, _, place = environment["ORCHARD_WAREHOUSE"].partition("://")
    if scheme == "s3":
        _s3(environment).create_bucket(Bucket=place.partition("/")[0])


def _emr_serverless(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    deployed = _deployed_to_s3(layout, environment, "--application", "orchard")
    return deployed | {"ORCHARD_EMR_ROLE": f"arn:aws:iam::{ACCOUNT}:role/orchard-jobs"}


def _emr(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    # A cluster a job, which ends with it, unless the user names another.
    # The stand-in's Python stands for that of an image which holds what the jobs import.
    cluster = environment.get("ORCHARD_EMR_CLUSTER") or '{"CustomAmiId": "ami-0123456789abcdef0"}'
    return _deployed_to_s3(layout, environment) | {"ORCHARD_EMR_CLUSTER": cluster}


def _deployed_to_s3(layout: Layout, environment: Mapping[str, str], *options: str) -> dict[str, str]:
    _s3(environment).create_bucket(Bucket=JOBS_BUCKET)
    return _deployed(layout, environment, f"s3://{JOBS_BUCKET}/orchard", *options)


def _s3(environment: Mapping[str, str]) -> Any:
    options: dict[str, Any] = {
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
        "region_name": REGION,
        "config": Config(retries={"total_max_attempts": 5, "mode": "standard"}),
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
    }
    make: Any = boto3.client
    return make("s3", **options)


def _databricks(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    # With it comes Databricks's SDK, which takes most of a second.
    from orchard_sandbox.databricks_compute import CREDENTIAL

    address, token = layout.databricks_file.read_text(), layout.secret("databricks")
    log_in = {"DATABRICKS_HOST": address, "DATABRICKS_TOKEN": token}
    host, _, port = address.rpartition(":")
    connection = {"conn_type": "databricks", "host": host, "schema": "http", "port": int(port), "password": token}
    deployed = _deployed(layout, {**environment, **log_in}, VOLUME)
    return deployed | {
        "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection),
        # Serverless compute has no log-in of its own to an S3 warehouse.
        "ORCHARD_DATABRICKS_CREDENTIAL": environment.get("ORCHARD_DATABRICKS_CREDENTIAL") or CREDENTIAL,
    }


def _deployed(layout: Layout, environment: Mapping[str, str], place: str, *options: str) -> dict[str, str]:
    command = [str(layout.airflow_python), "-P", "-m", "orchard.cli", "deploy", place, "--json", *options]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"the jobs' package could not be deployed to the stand-in: {done.stderr.strip()}")
    settings: dict[str, str] = json.loads(done.stdout)["settings"]
    return settings
