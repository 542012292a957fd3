"""A script that is run by spark-submit, as EMR does: fetched from S3, its logs put on S3. It knows no API."""

import gzip
import logging
import os
import shutil
import sys
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from orchard_jobs.contract.locations import S3Location, below, name_of

from orchard_sandbox.emr.submissions import Submission
from orchard_sandbox.job_execution.job import DRIVER_MEMORY, GuardedJob, Machine, MissingError
from orchard_sandbox.s3.landing import aws_client

log = logging.getLogger(__name__)
# What a step's own script may call: `aws`.
_COMMANDS = Path(__file__).with_name("commands")


class SparkSubmitJob(GuardedJob):
    """One attempt to run a script; its streams go to `<logs_uri>/stdout.gz` and `stderr.gz`, where that is given."""

    def __init__(self, machine: Machine, folder: Path, submission: Submission, logs_uri: str | None, marker: str) -> None:
        super().__init__(folder, marker)
        self._machine = machine
        self._submission = submission
        self._logs_uri = logs_uri
        self._s3 = aws_client("s3", machine.s3)

    def prepare(self) -> None:
        """Fetch all files and unpack archives beside them."""
        asked, temporary = self._submission, self.folder / "tmp"
        command = [str(self._machine.spark_submit), "--master", "local[2,4]", "--driver-memory", DRIVER_MEMORY]
        for option, uris in asked.files.items():
            if option == "--archives":
                for uri in uris:
                    self._unpack(uri)
            else:
                command += [option, ",".join(str(self._fetch(uri)) for uri in uris)]
        for name, value in {**asked.conf, **self._machine.spark_conf(temporary)}.items():
            command += ["--conf", f"{name}={value}"]
        self.command = [*asked.runner, *command, str(self._fetch(asked.entry_point)), *asked.arguments]
        made = self._machine.environment(temporary, asked.environment, self.marker)
        path = f"{_COMMANDS}{os.pathsep}{made.get('PATH', os.defpath)}"
        self.environment = made | {"PATH": path, "ORCHARD_SANDBOX_PYTHON": sys.executable}

    def finish(self) -> None:
        """Put the logs on S3, and remove all else."""
        for name, path in self.logs.items() if self._logs_uri else ():
            place = S3Location.parse(below(str(self._logs_uri), f"{name}.gz"))
            try:
                self._s3.put_object(Bucket=place.bucket, Key=place.key, Body=gzip.compress(path.read_bytes()))
            except (ClientError, BotoCoreError) as error:
                log.error("cannot write the log %s: %s", place.uri, error)
        super().finish()

    def _fetch(self, uri: str) -> Path:
        place = S3Location.parse(uri)
        path = self.folder / "run" / name_of(place.key)
        try:
            self._s3.download_file(place.bucket, place.key, str(path))
        except ClientError as error:
            raise MissingError(f"FileNotFoundException: cannot fetch '{uri}': {error}") from error
        return path

    def _unpack(self, uri: str) -> None:
        source, _, name = uri.partition("#")
        archive = self._fetch(source)
        folder = archive.with_name(name) if name else archive.with_name(archive.name + ".d")
        is_tar = archive.name.endswith((".tar", ".gz", ".tgz", ".bz2", ".xz"))
        # An environment's interpreter is a link to the system's, which the filter "data" refuses.
        shutil.unpack_archive(archive, folder, filter="tar" if is_tar else None)
