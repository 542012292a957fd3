"""One process of a submitted job on this machine, with all that it starts, under a guard. It knows no API.

The process's environment is the job's alone: nothing that configures the stand-in or Airflow leaks into it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchard_jobs.local_spark import class_archive_of, local_java_options

from orchard_sandbox.job_execution.processes import MARKER

# The driver is the whole cluster here, and what the request asks for is made for the vendor's workers.
DRIVER_MEMORY = "2g"
_KEPT = ("PATH", "HOME", "JAVA_HOME", "LANG", "LC_ALL", "TZ")
_PYTHONS = ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


class MissingError(Exception):
    """A file or a package that the job names is not there; the message says which."""


@dataclass(frozen=True)
class Machine:
    """What runs jobs.

    Attributes:
        spark_submit: the command.
        python: runs drivers and workers; it stands for that of the job's image.
        s3: the AWS_* variables of the S3 that scripts come from and logs go to; jobs get them, too.
    """

    spark_submit: Path
    python: Path
    s3: Mapping[str, str]

    @classmethod
    def beside(cls, python: Path, s3: Mapping[str, str]) -> "Machine":
        """Return the machine of an environment, given its Python."""
        return cls(python.absolute().with_name("spark-submit"), python.absolute(), s3)

    def spark_conf(self, temporary: Path) -> dict[str, str]:
        """Return Spark's properties on this machine, with the class archive that `make setup` puts into the environment."""
        return {
            "spark.ui.enabled": "false",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.defaultJavaOptions": local_java_options(str(class_archive_of(self.spark_submit.parents[1]))),
            "spark.local.dir": str(temporary),
        }

    def environment(self, temporary: Path, given: Mapping[str, str], marker: str) -> dict[str, str]:
        """Return the environment of a job's processes: of the stand-in's own it holds only what every program needs.

        Args:
            temporary: a folder of the job's own.
            given: what the request asks for; it wins, but for a Python by an absolute path, which is one of the image.
            marker: marks the job's processes.
        """
        return {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            **dict.fromkeys(_PYTHONS, str(self.python)),
            "PYTHONUNBUFFERED": "1",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "TMPDIR": str(temporary),
            "NO_PROXY": "127.0.0.1,localhost",
            **self.s3,
            **{name: value for name, value in given.items() if not (name in _PYTHONS and os.path.isabs(value))},
            MARKER: marker,
        }


class GuardedJob:
    """A job's process; a vendor's job says in `prepare` what to run.

    Args:
        folder: a folder of its own; its logs stay there.
        marker: marks the job's processes.

    Attributes:
        command: what runs; set by `prepare`.
        environment: of its processes; set by `prepare`.
    """

    def __init__(self, folder: Path, marker: str) -> None:
        self.folder, self.marker = folder, marker
        self.command: list[str] = []
        self.environment: dict[str, str] = {}
        self.logs = {name: folder / name for name in ("stdout", "stderr")}
        self._guard: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make its folder."""
        for name in ("run", "tmp"):
            (self.folder / name).mkdir(parents=True)
        for path in self.logs.values():
            path.touch()

    def prepare(self) -> None:
        """Get what the job needs; MissingError with the first thing that is not there."""

    def start(self) -> None:
        """Start the command under a guard."""
        job = {
            "command": self.command,
            "environment": self.environment,
            "folder": str(self.folder / "run"),
            "marker": self.marker,
            **{name: str(path) for name, path in self.logs.items()},
        }
        own = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        guard = [sys.executable, "-m", "orchard_sandbox.job_execution.guard"]
        self._guard = subprocess.Popen(guard, env=own, stdin=subprocess.PIPE, start_new_session=True)
        self._order(json.dumps(job))

    def status(self) -> int | None:
        """Return the exit status, 128 + the signal when one ended it; None while it runs."""
        return self._guard.poll() if self._guard else None

    def end(self, seconds: float) -> None:
        """Send SIGTERM to all its processes, and SIGKILL after the seconds; at 0 at once."""
        self._order(f"end {seconds}")

    def _order(self, line: str) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        try:
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()
        except BrokenPipeError:  # it has ended
            pass

    def write_error(self, line: str) -> None:
        """Append a line to the process's stderr, as the platform does."""
        with self.logs["stderr"].open("a") as stderr:
            stderr.write(line + "\n")

    def finish(self) -> None:
        """Remove all but the logs."""
        for name in ("run", "tmp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
