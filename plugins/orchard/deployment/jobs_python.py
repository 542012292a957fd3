"""The jobs' own Python on this machine: starts its command line, and explains why if that fails."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any

from orchard_jobs.contract.environment import of_job
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.escaping import escaping_logger

from orchard.settings import Settings

log = escaping_logger(__name__)
_CONFIGURATION_FAULT = 2


def start_jobs_python(
    settings: Settings, arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[str]
) -> subprocess.Popen[str]:
    """Start `orchard-jobs` with these arguments; its stdout is a pipe.

    Args:
        settings: name the Python.
        arguments: the command and its arguments.
        environment: of it the process gets what a job needs.
        stderr: an open file that takes its messages.

    Raises:
        ConfigurationError: the jobs' Python cannot be run.
    """
    command = [settings.local.jobs_python, "-m", "orchard_jobs.cli", *arguments]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=of_job(environment))
    except OSError as error:
        raise ConfigurationError(
            f"ORCHARD_JOBS_PYTHON={settings.local.jobs_python!r} cannot be run: {error}; name the Python of the jobs' environment"
        ) from error


def last_error_line(stderr: IO[str]) -> str:
    """Return the last line that a process wrote to its file of messages: its error."""
    stderr.seek(0)
    return (stderr.read().strip().splitlines() or ["no output"])[-1]


def rows_of_files(settings: Settings, options: Sequence[str], files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield what the jobs' environment finds out of each image file, in order; a bad one has a reason and a message.

    Args:
        settings: name the backbone, the warehouse, the pixel limit and the jobs' Python.
        options: of `orchard-jobs embed`, what is asked of the files.
        files: their paths; `-` for stdin.

    Raises:
        ConfigurationError: the jobs' environment, the weights or a package are not there.
        JobError: the process ended before it had done every file.
    """
    arguments = ["embed", "--warehouse", settings.warehouse, "--backbone", json.dumps(asdict(settings.backbone))]
    arguments += ["--pixel-limit", str(settings.images.pixel_limit), *options, "--", *files]
    done = 0
    with tempfile.TemporaryFile("w+") as stderr:
        with start_jobs_python(settings, arguments, os.environ, stderr) as process:
            assert process.stdout is not None, "its stdout is a pipe"
            try:
                for line in process.stdout:
                    done += 1
                    yield json.loads(line)
            except BaseException:  # an interrupt, or whoever reads has stopped
                process.terminate()
                raise
        if done < len(files):
            fault = ConfigurationError if process.returncode == _CONFIGURATION_FAULT else JobError
            raise fault(f"embed ended after {done} of {len(files)} files: {last_error_line(stderr)}")


def prepare_backbone(settings: Settings, environment: Mapping[str, str], *, is_run_here: bool = False) -> None:
    """Check the weights of the settings' backbone, and export it into the warehouse once.

    Args:
        settings: name the backbone, the warehouse and the jobs' Python.
        environment: of it the process gets what a job needs.
        is_run_here: whether the jobs run on this machine, so that it must be able to.

    Raises:
        ConfigurationError: the weights are not available, the machine lacks what the engine needs, or the jobs' environment does
            not exist.
    """
    backbone = settings.backbone
    arguments = [
        "prepare",
        "--warehouse",
        settings.warehouse,
        "--backbone",
        json.dumps(asdict(backbone)),
        *(["--load"] if is_run_here else []),
    ]
    with tempfile.TemporaryFile("w+") as stderr:
        process = start_jobs_python(settings, arguments, environment, stderr)
        process.communicate()
        if process.returncode != 0:
            last = last_error_line(stderr)
            stderr.seek(0)
            for line in stderr:
                log.error("prepare: %s", line.rstrip("\n"))
            raise ConfigurationError(f"backbone {backbone.id} cannot be loaded: {last}")
