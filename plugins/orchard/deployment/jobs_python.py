"""The jobs' own Python on this machine: starts its command line, and explains why if that fails."""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import IO

from orchard_jobs.contract.environment import of_job
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.escaping import escaping_logger

from orchard.settings import Settings

log = escaping_logger(__name__)


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
