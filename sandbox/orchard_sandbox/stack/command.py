"""What a user's shell takes from the stack, for its owner alone: the command `orchard`, and the keys for other tools."""

import shlex
from collections.abc import Iterable, Mapping

from orchard_sandbox.files import write_whole
from orchard_sandbox.stack.stack_paths import Layout

# What the command reads, no secret of Airflow's own among it; AIRFLOW_HOME, for Airflow makes one in the user's home without it.
_READ = ("ORCHARD_", "AWS_", "AIRFLOW_CONN_", "AIRFLOW_HOME", "NO_PROXY", "no_proxy")
_KEYS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION")


def write_command(layout: Layout, environment: Mapping[str, str]) -> None:
    """Write `orchard` into the stack's home; while the stack is stopped it cannot list the landing zone."""
    exports = _exports(environment, (name for name in environment if name.startswith(_READ)))
    run = f'exec {shlex.quote(str(layout.airflow_python))} -P -m orchard.cli "$@"'
    text = "\n".join(["#!/bin/sh", "# Orchard's commands on this stack; `make run` writes this file again.", *exports, run, ""])
    write_whole(layout.command, text)
    layout.command.chmod(0o700)


def write_aws_keys(layout: Layout, environment: Mapping[str, str]) -> None:
    """Write the variables that give `aws`, boto3, delta-rs and others the stack's S3 and queue; a shell reads them by `.`."""
    # Delta-rs and polars refuse http without the last one.
    exports = _exports({**environment, "AWS_ALLOW_HTTP": "true"}, (*_KEYS, "AWS_ALLOW_HTTP"))
    write_whole(layout.aws_keys, "\n".join(["# The keys of this stack; `make run` writes this file again.", *exports, ""]))


def _exports(environment: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [f"export {name}={shlex.quote(environment[name])}" for name in sorted(names)]
