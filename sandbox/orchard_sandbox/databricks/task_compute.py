"""The compute of a Databricks task: its Python with the wheel and its dependencies, its command and its environment."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard_sandbox.databricks import CREDENTIAL
from orchard_sandbox.databricks.environments import Environments
from orchard_sandbox.databricks.mounts import Mounts
from orchard_sandbox.databricks.volumes import Volumes
from orchard_sandbox.files import write_whole
from orchard_sandbox.job_execution.job import DRIVER_MEMORY, GuardedJob, Machine, MissingError

# Access modes, of a cluster, in which Python functions have no network; serverless compute is one of these.
_ISOLATED = ("USER_ISOLATION", "DATA_SECURITY_MODE_STANDARD", "DATA_SECURITY_MODE_AUTO")
_LOG_IN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OWN = (*_LOG_IN, "AWS_REGION", "AWS_DEFAULT_REGION")  # what an instance profile gives, and serverless compute lacks
_STORE = (*_OWN, "AWS_ENDPOINT_URL")


class Workspace:
    """Everything that runs use, below one folder.

    Attributes:
        machine: what runs tasks, and the S3 that their drivers reach.
        address: where the stand-in itself answers.
        has_spark: whether tasks get a Spark session, which takes most of a small one's time.
        mounts: the S3 stand-in's objects, as Spark reads them.
    """

    def __init__(self, folder: Path, machine: Machine, objects: Path, address: str, has_spark: bool = True) -> None:
        self.folder, self.machine, self.address, self.has_spark = folder, machine, address, has_spark
        self.volumes = Volumes(folder / "volumes")
        self.environments = Environments(folder / "environments", machine.python)
        self.mounts = Mounts(folder / "s3", objects)

    def library(self, path: str) -> Path:
        """Return the path of a wheel; raise MissingError when it does not exist."""
        found = self.volumes.path(path)
        if not found.is_file():
            raise MissingError(f"Library installation failed: {path} does not exist.")
        return found


class TaskJob(GuardedJob):
    """The one task of a run, as its request of `runs/submit` asks for it; the folder is its own."""

    def __init__(self, workspace: Workspace, request: Mapping[str, Any], folder: Path, marker: str) -> None:
        super().__init__(folder, marker)
        self._workspace, self._request = workspace, request
        (self._task,) = request["tasks"]

    def prepare(self) -> None:
        """Install what the task asks for."""
        wheels, packages = self._libraries()
        workspace = self._workspace
        python = workspace.environments.of([workspace.library(wheel) for wheel in wheels], packages)
        machine = replace(workspace.machine, python=python)
        made = machine.environment(self.folder / "tmp", {}, self.marker)
        order = {
            "package": self._task["python_wheel_task"]["package_name"],
            "entry_point": self._task["python_wheel_task"]["entry_point"],
            "parameters": self._task["python_wheel_task"].get("parameters", []),
            "app_name": self._request.get("run_name", "run") if workspace.has_spark else None,
            "credentials": {CREDENTIAL: [made[name] for name in _LOG_IN]},
        }
        task = self.folder / "run" / "task.json"
        write_whole(task, json.dumps(order))  # other users can read a command line, and it holds a secret
        self.command = [str(python), str(Path(__file__).with_name("task.py")), str(task)]
        if self._is_serverless:
            made = {name: value for name, value in made.items() if name not in _OWN}
        self.environment = made | self._spark(machine)
        self._write_worker(python)

    @property
    def _is_serverless(self) -> bool:
        return "environment_key" in self._task

    def _spark(self, machine: Machine) -> dict[str, str]:
        """Return the variables that give the task its Spark session."""
        cluster = self._task.get("new_cluster", {})
        conf = {
            **cluster.get("spark_conf", {}),
            **self._workspace.mounts.conf(),
            **machine.spark_conf(self.folder / "tmp"),
            "spark.driver.memory": DRIVER_MEMORY,
        }
        words = [f"--conf {shlex.quote(f'{name}={value}')}" for name, value in conf.items()]
        words += ["pyspark-shell" if self._is_serverless else "--master local[2,4] pyspark-shell"]
        return {
            **cluster.get("spark_env_vars", {}),
            "PYSPARK_PYTHON": str(self.folder / "run" / "worker-python"),
            "PYSPARK_SUBMIT_ARGS": " ".join(words),
            # Serverless compute gives a session of Spark Connect; its server takes a free port only where this says so.
            **({"SPARK_REMOTE": "local[2,4]", "SPARK_TESTING": "1"} if self._is_serverless else {}),
        }

    def _write_worker(self, python: Path) -> None:
        """Write the workers' Python: without a network they know neither the store nor its credentials."""
        script = self.folder / "run" / "worker-python"
        unset = f"unset {' '.join(_STORE)}\n" if is_isolated(self._task) else ""
        script.write_text(f'#!/bin/sh\n{unset}exec "{python}" "$@"\n')
        script.chmod(0o755)

    def _libraries(self) -> tuple[list[str], list[str]]:
        """Return the wheels on volumes, and the packages of an index, that the task asks for."""
        if self._is_serverless:
            key = self._task["environment_key"]
            (spec,) = [one["spec"] for one in self._request["environments"] if one["environment_key"] == key]
            asked = spec.get("dependencies", [])
            return [one for one in asked if os.path.isabs(one)], [one for one in asked if not os.path.isabs(one)]
        libraries = self._task.get("libraries", [])
        wheels = [library["whl"] for library in libraries if "whl" in library]
        return wheels, [library["pypi"]["package"] for library in libraries if "pypi" in library]


def is_isolated(task: Mapping[str, Any]) -> bool:
    """Tell whether the Python workers of a task's compute have no network."""
    return "environment_key" in task or task.get("new_cluster", {}).get("data_security_mode") in _ISOLATED
