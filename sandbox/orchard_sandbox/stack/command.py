"""The command `orchard` of the embedded stack: a script that runs it with the environment of the stack's processes."""

import shlex
from collections.abc import Mapping

from orchard_sandbox.files import write_whole
from orchard_sandbox.stack.layout import Layout

# What the command reads, no secret of Airflow's own among it; AIRFLOW_HOME, for Airflow makes one in the user's home without it.
_READ = ("ORCHARD_", "AWS_", "AIRFLOW_CONN_", "AIRFLOW_HOME", "NO_PROXY", "no_proxy")


def write_command(layout: Layout, environment: Mapping[str, str]) -> None:
    """Write `orchard` into the stack's home, for its owner alone; while the stack is stopped it cannot list the landing zone."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items()) if name.startswith(_READ)]
    run = f'exec {shlex.quote(str(layout.airflow_python))} -P -m orchard.cli "$@"'
    text = "\n".join(["#!/bin/sh", "# Orchard's commands on this stack; `make run` writes this file again.", *exports, run, ""])
    write_whole(layout.command, text)
    layout.command.chmod(0o700)
