"""Prepares a target's stand-in for jobs: deploys the package, and creates what the package is deployed to."""

import json
import subprocess
from collections.abc import Mapping

from orchard_jobs.contract.locations import S3Location

from orchard_sandbox.databricks import CREDENTIAL, VOLUME
from orchard_sandbox.errors import SandboxError
from orchard_sandbox.s3.landing import ACCOUNT, aws_client
from orchard_sandbox.stack.stack_paths import Layout

EMR_TARGETS = ("emr_serverless", "emr")
_JOBS_BUCKET = "jobs"
# A cluster a job, which ends with it; the stand-in's Python stands for that of an image which holds what the jobs import.
_CLUSTER = '{"CustomAmiId": "ami-0123456789abcdef0"}'


def target_settings(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    """Deploy the package to the environment's target, and return the additional variables that Airflow needs.

    Raises:
        SandboxError: the package could not be built or uploaded.
    """
    target = environment["ORCHARD_TARGET"]
    if target == "databricks":
        return _databricks(layout, environment)
    aws_client("s3", environment).create_bucket(Bucket=_JOBS_BUCKET)
    options = ("--application", "orchard") if target == "emr_serverless" else ()
    settings = _deploy(layout, environment, S3Location(_JOBS_BUCKET, "orchard").uri, *options)
    if target == "emr_serverless":
        return settings | {"ORCHARD_EMR_ROLE": f"arn:aws:iam::{ACCOUNT}:role/orchard-jobs"}
    return settings | {"ORCHARD_EMR_CLUSTER": environment.get("ORCHARD_EMR_CLUSTER") or _CLUSTER}


def make_warehouse_bucket(environment: Mapping[str, str]) -> None:
    """Create the bucket of a warehouse on the S3 stand-in, unless it exists."""
    place = S3Location.find(environment["ORCHARD_WAREHOUSE"])
    if place is not None:
        aws_client("s3", environment).create_bucket(Bucket=place.bucket)


def _databricks(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    address, token = layout.databricks_file.read_text(), layout.secret("databricks")
    log_in = {"DATABRICKS_HOST": address, "DATABRICKS_TOKEN": token}
    host, _, port = address.rpartition(":")
    connection = {"conn_type": "databricks", "host": host, "schema": "http", "port": int(port), "password": token}
    return _deploy(layout, {**environment, **log_in}, VOLUME) | {
        "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection),
        # Serverless compute has no log-in of its own to an S3 warehouse.
        "ORCHARD_DATABRICKS_CREDENTIAL": environment.get("ORCHARD_DATABRICKS_CREDENTIAL") or CREDENTIAL,
    }


def _deploy(layout: Layout, environment: Mapping[str, str], place: str, *options: str) -> dict[str, str]:
    command = [str(layout.airflow_python), "-P", "-m", "orchard.cli", "deploy", place, "--json", *options]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"the jobs' package could not be deployed to the stand-in: {done.stderr.strip()}")
    settings: dict[str, str] = json.loads(done.stdout)["settings"]
    return settings
