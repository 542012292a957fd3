"""The Databricks stand-in as a full workspace, with faults that a test orders; run as a program."""

import os
from functools import partial
from wsgiref.types import WSGIEnvironment

from orchard_sandbox.databricks import stand_in
from orchard_sandbox.databricks.stand_in import RUNS_API
from orchard_sandbox.databricks.task_compute import Workspace
from orchard_sandbox.job_execution import serving
from werkzeug.serving import make_server

from support.databricks_workspace import FullWorkspace
from support.steered_stand_in import Steering


def _operation_of(environ: WSGIEnvironment) -> str | None:
    """Return the name of a call of runs: `submit`, `get`, ...; None for all else."""
    path = str(environ["PATH_INFO"])
    return path.removeprefix(RUNS_API) if path.startswith(RUNS_API) else None


def _refusal(status: int) -> dict[str, str]:
    code = "REQUEST_LIMIT_EXCEEDED" if status == 429 else "INTERNAL_ERROR"
    return {"error_code": code, "message": "a fault that was ordered"}


class OverTls(FullWorkspace):
    """The workspace at an address with https."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        workspace.address = workspace.address.replace("http://", "https://")
        super().__init__(workspace, token)


def main() -> None:
    """Serve; over TLS where ORCHARD_TEST_CERTIFICATE names a PEM file of the key and the certificate."""
    certificate = os.environ.get("ORCHARD_TEST_CERTIFICATE")
    if certificate:
        vars(serving)["make_server"] = partial(make_server, ssl_context=(certificate, certificate))
    stand_in.main(OverTls if certificate else FullWorkspace)


if __name__ == "__main__":
    out_of_memory = "Python kernel is unresponsive: the driver ran out of memory."
    Steering(_operation_of, _refusal, out_of_memory, minute_seconds=1.0).install(stand_in)
    main()
