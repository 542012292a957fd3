"""The commands of the stack, whose AWS stand-in suffers faults that a test orders; run as a program."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from orchard_sandbox.job_execution.processes import ProcessRecord, start_process
from orchard_sandbox.stack import supervisor
from orchard_sandbox.stack.cli import main

from support.repository import ROOT


def start_steered(name: str, command: list[str], environment: Mapping[str, str], *rest: Any) -> ProcessRecord:
    """Start a process of the stack, and for the AWS stand-in the steered one."""
    if name == supervisor.S3:
        command = ["support.steered_aws" if word == "orchard_sandbox.aws_stand_in" else word for word in command]
        environment = {**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}{os.pathsep}{ROOT / 'tests'}"}
    return start_process(name, command, environment, *rest)


if __name__ == "__main__":
    vars(supervisor)["start_process"] = start_steered
    sys.exit(main())
