"""One stack with its images, and the commands that a user types."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from orchard_sandbox.job_execution.processes import find_members
from orchard_sandbox.s3.landing import aws_client, s3_environment
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.stack_paths import ROOT, Layout
from orchard_sandbox.stack.stack_state import read_state


@dataclass
class Stack:
    """One home with its images, and the command that a user types."""

    home: Path
    images: Path
    variables: dict[str, str] = field(default_factory=dict)
    program: str = "orchard_sandbox"

    def command(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "ORCHARD", "AWS_"))}
        environment |= {"ORCHARD_HOME": str(self.home), "PYTHONPATH": f"{ROOT / 'sandbox'}{os.pathsep}{ROOT / 'tests'}"}
        environment |= {"ORCHARD_RETRY_SECONDS": "5", **self.variables, **variables}
        command = [sys.executable, "-m", self.program, name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
        print(done.stdout, done.stderr)
        return done

    def run(self, batches: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return self.command("run", IMAGES=str(self.images), BATCHES=batches, **variables)

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_delta(str(self.home / "warehouse" / name))

    @property
    def api(self) -> AirflowApi:
        layout = Layout(self.home)
        return AirflowApi(read_state(layout).api_address, layout.password_file)

    @property
    def aws_variables(self) -> dict[str, str]:
        """The variables that let other tools reach the stack's S3."""
        layout = Layout(self.home)
        return s3_environment(read_state(layout).s3_address, layout.secret("s3"))

    def reports(self) -> set[Path]:
        return set((self.home / "warehouse" / "_work").glob("*/report.json"))

    def end(self) -> None:
        """Stop the stack, and see that nothing of it is left."""
        stopped = self.command("stop")
        assert stopped.returncode == 0
        assert ", 0 left" in stopped.stdout
        assert find_members([], Layout(self.home).marker) == set()


def run_printed_program(printed: str) -> str:
    """Run the program that `make run` prints for reading the tables, and return what it shows."""
    program = next(line for line in printed.splitlines() if line.startswith("read:")).partition("read:")[2]
    return subprocess.run(program, shell=True, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def wait_for_silence(api: AirflowApi, *dag_ids: str) -> None:
    while any(api.runs(dag_id, ("queued", "running")) for dag_id in dag_ids):
        time.sleep(1)


def bare_client(stack: Stack) -> Any:
    """Return a client of the landing zone that knows nothing of Orchard."""
    return aws_client("s3", stack.aws_variables)
