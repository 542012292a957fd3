"""The Databricks stand-in as a full workspace, with faults that a test orders; run as a program."""

from wsgiref.types import WSGIEnvironment

from orchard_sandbox.databricks import stand_in
from orchard_sandbox.databricks.jobs import RUNS_API

from support.databricks_workspace import FullWorkspace
from support.steered_stand_in import Steering


def _operation_of(environ: WSGIEnvironment) -> str | None:
    """Return the name of a call of runs: `submit`, `get`, ...; None for all else."""
    path = str(environ["PATH_INFO"])
    return path.removeprefix(RUNS_API) if path.startswith(RUNS_API) else None


def _refusal(status: int) -> dict[str, str]:
    code = "REQUEST_LIMIT_EXCEEDED" if status == 429 else "INTERNAL_ERROR"
    return {"error_code": code, "message": "a fault that was ordered"}


if __name__ == "__main__":
    out_of_memory = "Python kernel is unresponsive: the driver ran out of memory."
    Steering(_operation_of, _refusal, out_of_memory, minute_seconds=1.0).install(stand_in)
    stand_in.main(FullWorkspace)
