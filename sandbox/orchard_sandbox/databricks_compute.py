"""What a Databricks run's task runs on: its Python with the wheel and its dependencies, its command and its environment."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard_sandbox.databricks_files import Environments, MissingError, Mounts, Volumes
from orchard_sandbox.databricks_workspace import WorkspaceFiles
from orchard_sandbox.faults import Faults
from orchard_sandbox.job_runs import Pace
from orchard_sandbox.submitted_job import DRIVER_MEMORY, Machine, job_environment

# Access modes, of a cluster, in which Python functions have no network; serverless compute is one of these.
_ISOLATED = ("USER_ISOLATION", "DATA_SECURITY_MODE_STANDARD", "DATA_SECURITY_MODE_AUTO")
_LOG_IN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OWN = (*_LOG_IN, "AWS_REGION", "AWS_DEFAULT_REGION")  # what an instance profile gives, and serverless compute lacks
_STORE = (*_OWN, "AWS_ENDPOINT_URL")
# Unity Catalog's service credential for the S3 stand-in.
CREDENTIAL = "orchard"


@dataclass(frozen=True)
class Workspace:
    """What runs draw on.

    Attributes:
        folder: keeps the runs.
        machine: what runs them, and the S3 that their drivers reach.
        volumes: holds wheels.
        files: may hold wheels, too.
        environments: makes the task's Python.
        mounts: S3 as Spark reads it.
        pace: their clock; a second of a time-out lasts a sixtieth of its minute.
        faults: what they suffer.
        address: where the stand-in itself answers.
        has_spark: whether tasks get a Spark session, which takes most of a small one's time.
    """

    folder: Path
    machine: Machine
    volumes: Volumes
    files: WorkspaceFiles
    environments: Environments
    mounts: Mounts
    pace: Pace
    faults: Faults
    address: str
    has_spark: bool = True

    def library(self, path: str) -> Path:
        """Return where a wheel lies; MissingError when it is not there."""
        found = (self.files if path.startswith("/Workspace/") else self.volumes).path(path)
        if not found.is_file():
            raise MissingError(f"Library installation failed: {path} does not exist.")
        return found


@dataclass(frozen=True)
class Compute:
    """What one task runs on.

    Attributes:
        python: of the task's own environment.
        command: starts the task.
        environment: of its processes.
        is_isolated: whether its workers have no network.
    """

    python: Path
    command: list[str]
    environment: dict[str, str]
    is_isolated: bool

    def write_worker(self, folder: Path) -> None:
        """Write the workers' Python into the task's folder: without a network they know neither the store nor its credentials."""
        script = folder / "worker-python"
        unset = f"unset {' '.join(_STORE)}\n" if self.is_isolated else ""
        script.write_text(f'#!/bin/sh\n{unset}exec "{self.python}" "$@"\n')
        script.chmod(0o755)


def prepare(workspace: Workspace, request: Mapping[str, Any], marker: str, folder: Path) -> Compute:
    """Install what a request's one task asks for, and return what it runs on.

    Args:
        workspace: what it draws on.
        request: of `runs/submit`.
        marker: marks the task's processes.
        folder: the task's own, with `run` and `tmp` in it.

    Raises:
        MissingError: a wheel or a package is not there.
    """
    (task,) = request["tasks"]
    wheels, packages = _libraries(request, task)
    python = workspace.environments.of([workspace.library(wheel) for wheel in wheels], packages)
    wheel_task = task["python_wheel_task"]
    told = {
        "package": wheel_task["package_name"],
        "entry_point": wheel_task["entry_point"],
        "parameters": wheel_task.get("parameters", []),
        "app_name": request.get("run_name", "run") if workspace.has_spark else None,
    }
    cluster = task.get("new_cluster", {})
    is_serverless = "environment_key" in task
    conf = {
        **cluster.get("spark_conf", {}),
        **workspace.mounts.conf(),
        "spark.ui.enabled": "false",
        "spark.driver.memory": DRIVER_MEMORY,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.defaultJavaOptions": workspace.machine.java_options,
        "spark.local.dir": str(folder / "tmp"),
    }
    options = [f"--conf {shlex.quote(f'{name}={value}')}" for name, value in conf.items()]
    spark = {
        **cluster.get("spark_env_vars", {}),
        "PYSPARK_PYTHON": str(folder / "run" / "worker-python"),
        "PYSPARK_SUBMIT_ARGS": " ".join([*options, "pyspark-shell" if is_serverless else "--master local[2] pyspark-shell"]),
        # Serverless compute gives a session of Spark Connect; its server takes a free port only where this says so.
        **({"SPARK_REMOTE": "local[2]", "SPARK_TESTING": "1"} if is_serverless else {}),
    }
    machine = Machine(workspace.machine.spark_submit, python, workspace.machine.address)
    own = job_environment(os.environ, machine, folder / "tmp", {}, marker) | spark
    told["credentials"] = {CREDENTIAL: [own[name] for name in _LOG_IN]}
    if is_serverless:
        for name in _OWN:
            del own[name]
    script = Path(__file__).with_name("databricks_task.py")
    return Compute(
        python=python,
        command=[str(python), str(script), json.dumps(told)],
        environment=own,
        is_isolated=is_isolated(task),
    )


def is_isolated(task: Mapping[str, Any]) -> bool:
    """Tell whether the Python workers of a task's compute have no network."""
    return "environment_key" in task or task.get("new_cluster", {}).get("data_security_mode") in _ISOLATED


def _libraries(request: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the wheels on volumes or among workspace files, and the packages of an index, that a task asks for."""
    if "environment_key" in task:
        (spec,) = [one["spec"] for one in request["environments"] if one["environment_key"] == task["environment_key"]]
        asked = spec.get("dependencies", [])
        return [one for one in asked if one.startswith("/")], [one for one in asked if not one.startswith("/")]
    libraries = task.get("libraries", [])
    wheels = [library["whl"] for library in libraries if "whl" in library]
    return wheels, [library["pypi"]["package"] for library in libraries if "pypi" in library]
