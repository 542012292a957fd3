"""One run of a submitted Spark script on this machine: fetched from S3, run by spark-submit under a guard, its logs put on S3.

It knows no API. The process's environment is the job's alone: nothing that configures the stand-in or Airflow leaks into it.
"""

import gzip
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from orchard_jobs.local_spark import class_archive_of, local_java_options

from orchard_sandbox.landing import REGION
from orchard_sandbox.processes import MARKER
from orchard_sandbox.spark_submission import Submission

log = logging.getLogger(__name__)
# The driver is the whole cluster here, and what the request asks for is made for AWS's workers.
DRIVER_MEMORY = "2g"
LOG_SECONDS = 2.0
# What a step's own script may call: `aws`.
_COMMANDS = Path(__file__).with_name("commands")
_KEPT = ("PATH", "HOME", "JAVA_HOME", "LANG", "LC_ALL", "TZ")
_PYTHONS = ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


@dataclass(frozen=True)
class Machine:
    """What runs jobs.

    Attributes:
        spark_submit: the command.
        python: runs drivers and workers; it stands for that of the job's image.
        address: of the S3 that scripts come from and logs go to.
    """

    spark_submit: Path
    python: Path
    address: str

    @property
    def java_options(self) -> str:
        """Java's options, with the class archive that `make setup` puts into the environment."""
        return local_java_options(str(class_archive_of(self.spark_submit.parents[1])))

    def s3(self) -> Any:
        """Return a client of the S3."""
        return boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id="orchard",
            aws_secret_access_key="orchard",
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )


class MissingFileError(Exception):
    """A file that the job names is not on S3."""


class GuardedJob:
    """One process of a job on this machine, with all that it starts, under a guard.

    Args:
        folder: a folder of its own; its logs stay there.
        marker: marks the job's processes.
    """

    def __init__(self, folder: Path, marker: str) -> None:
        self._folder = folder
        self._marker = marker
        self._guard: subprocess.Popen[bytes] | None = None
        for name in ("run", "tmp"):
            (folder / name).mkdir(parents=True)
        for path in self.logs.values():
            path.touch()

    @property
    def logs(self) -> dict[str, Path]:
        """The process's streams by name."""
        return {name: self._folder / name for name in ("stdout", "stderr")}

    def run(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Start the command under a guard."""
        job = {
            "command": command,
            "environment": environment,
            "folder": str(self._folder / "run"),
            "marker": self._marker,
            **{name: str(path) for name, path in self.logs.items()},
        }
        own = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "orchard_sandbox.job_guard"], env=own, stdin=subprocess.PIPE, start_new_session=True
        )
        self._order(json.dumps(job))

    def status(self) -> int | None:
        """Return the exit status, 128 + the signal when one ended it; None while it runs."""
        return self._guard.poll() if self._guard else None

    def end(self, seconds: float) -> None:
        """Send SIGTERM to all its processes, and SIGKILL after the seconds; at 0 at once."""
        self._order(f"end {seconds}" if seconds else "kill")

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

    def read_lines(self) -> list[str]:
        """Return what the process wrote: all of stderr, then all of stdout."""
        return [line for name in ("stderr", "stdout") for line in self.logs[name].read_text(errors="replace").splitlines()]

    def remove_files(self) -> None:
        """Remove all but the logs."""
        for name in ("run", "tmp"):
            shutil.rmtree(self._folder / name, ignore_errors=True)


class SubmittedJob(GuardedJob):
    """One attempt to run a script by spark-submit.

    Args:
        machine: what runs it.
        folder: a folder of its own; its logs stay there.
        submission: what to run.
        logs_uri: where `stdout.gz` and `stderr.gz` go; None for nowhere.
        marker: marks the job's processes.
    """

    def __init__(self, machine: Machine, folder: Path, submission: Submission, logs_uri: str | None, marker: str) -> None:
        super().__init__(folder, marker)
        self._machine = machine
        self._submission = submission
        self._logs_uri = logs_uri
        self._s3 = machine.s3()
        self._logged: dict[str, int] = {}
        self._next_logs = 0.0

    def fetch(self) -> list[str]:
        """Fetch all files, unpack archives beside them and return the command.

        Raises:
            MissingFileError: with the first file that is not there.
        """
        command = [str(self._machine.spark_submit), "--master", "local[2]", "--driver-memory", DRIVER_MEMORY]
        for option, uris in self._submission.files.items():
            if option == "--archives":
                for uri in uris:
                    self._unpack(uri)
            else:
                command += [option, ",".join(str(self._fetch(uri)) for uri in uris)]
        ours = {
            "spark.ui.enabled": "false",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.defaultJavaOptions": self._machine.java_options,
            "spark.local.dir": str(self._folder / "tmp"),
        }
        for name, value in {**self._submission.conf, **ours}.items():
            command += ["--conf", f"{name}={value}"]
        script = self._fetch(self._submission.entry_point)
        return [*self._submission.runner, *command, str(script), *self._submission.arguments]

    def start(self, command: list[str]) -> None:
        """Start the command."""
        self.run(command, self._environment())

    def put_logs(self, is_last: bool = False) -> None:
        """Put the logs on S3 where they have grown, every few seconds and at the end."""
        if self._logs_uri is None or (time.monotonic() < self._next_logs and not is_last):
            return
        self._next_logs = time.monotonic() + LOG_SECONDS
        for name, path in self.logs.items():
            content = path.read_bytes()
            if self._logged.get(name) == len(content):
                continue
            bucket, key = _bucket_and_key(f"{self._logs_uri}/{name}.gz")
            try:
                self._s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(content))
                self._logged[name] = len(content)
            except (ClientError, BotoCoreError) as error:
                log.error("cannot write the log s3://%s/%s: %s", bucket, key, error)

    def _fetch(self, uri: str) -> Path:
        bucket, key = _bucket_and_key(uri)
        path = self._folder / "run" / key.rpartition("/")[2]
        try:
            self._s3.download_file(bucket, key, str(path))
        except ClientError as error:
            raise MissingFileError(f"FileNotFoundException: cannot fetch '{uri}': {error}") from error
        return path

    def _unpack(self, uri: str) -> None:
        source, _, name = uri.partition("#")
        archive = self._fetch(source)
        folder = archive.with_name(name) if name else archive.with_name(archive.name + ".d")
        is_tar = archive.name.endswith((".tar", ".gz", ".tgz", ".bz2", ".xz"))
        # An environment's interpreter is a link to the system's, which the filter "data" refuses.
        shutil.unpack_archive(archive, folder, filter="tar" if is_tar else None)

    def _environment(self) -> dict[str, str]:
        made = job_environment(os.environ, self._machine, self._folder / "tmp", self._submission.environment, self._marker)
        return made | {"PATH": f"{_COMMANDS}{os.pathsep}{made.get('PATH', os.defpath)}", "ORCHARD_SANDBOX_PYTHON": sys.executable}


def job_environment(
    server: Mapping[str, str], machine: Machine, temporary: Path, given: Mapping[str, str], marker: str
) -> dict[str, str]:
    """Return the environment of a job's processes.

    Args:
        server: the stand-in's own, of which only what every program needs is kept.
        machine: its Python is taken where the request names one by an absolute path, which is one of the image.
        temporary: a folder of the job's own.
        given: what the request asks for; it wins.
        marker: marks the job's processes.
    """
    asked = {name: value for name, value in given.items() if not (name in _PYTHONS and value.startswith("/"))}
    return {
        **{name: server[name] for name in _KEPT if name in server},
        **dict.fromkeys(_PYTHONS, str(machine.python)),
        "PYTHONUNBUFFERED": "1",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TMPDIR": str(temporary),
        "NO_PROXY": "127.0.0.1,localhost",
        "AWS_ENDPOINT_URL": machine.address,
        "AWS_ACCESS_KEY_ID": "orchard",
        "AWS_SECRET_ACCESS_KEY": "orchard",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **asked,
        MARKER: marker,
    }


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
