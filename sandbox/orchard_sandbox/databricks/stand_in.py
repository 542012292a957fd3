"""The Databricks stand-in: a workspace's Jobs, Files and Workspace API on loopback, whose runs are truly executed.

A process of its own. What it does not know it refuses with the API's error, and it never reports success without work.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Request, Response

from orchard_sandbox.databricks import VOLUME
from orchard_sandbox.databricks.compute import Workspace
from orchard_sandbox.databricks.jobs import JOBS_API, Jobs
from orchard_sandbox.databricks.log_in import LogIns
from orchard_sandbox.databricks.requests import ApiError, given_of
from orchard_sandbox.databricks.volumes import FILES_API
from orchard_sandbox.job_execution.control import Control
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import Pace
from orchard_sandbox.job_execution.serving import add_options, listen, serve


class Databricks:
    """A workspace's API; see LogIns for the tokens that it accepts."""

    def __init__(self, workspace: Workspace, token: str, principals: dict[str, str]) -> None:
        self._workspace = workspace
        self._log_ins = LogIns(workspace.address, token, principals)
        self._jobs = Jobs(workspace)
        workspace.volumes.make(VOLUME)
        self._calls = {**self._jobs.calls(), **workspace.files.calls()}

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return self._route(request)
        except ApiError as error:
            return _json({"error_code": error.code, "message": str(error)}, error.status)

    def _route(self, request: Request) -> Response:
        if request.path.startswith(("/oidc/", "/.well-known/")):
            return _json(*self._log_ins.answer(request))
        self._log_ins.check(request)
        if request.path.startswith(FILES_API):
            return self._workspace.volumes.answer(request)
        if (request.method, request.path) not in self._calls:
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        found = self._calls[request.method, request.path](given_of(request))
        return Response(found, mimetype="application/octet-stream") if isinstance(found, bytes) else _json(found)

    def application(self) -> Any:
        """Return the WSGI application, with faults and the pages of runs."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            return self.answer(Request(environ))(environ, start_response)

        return Control(self._workspace.faults, self._jobs.find, _operation_of, _refusal).wrap(answer)


def _json(found: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(found), status, mimetype="application/json")


def _operation_of(environ: dict[str, Any]) -> str | None:
    """Return the call's name for faults: `submit`, `get`, ... of runs, `run-now`, ... of jobs; None for all else."""
    path = str(environ["PATH_INFO"])
    return path.removeprefix(JOBS_API).removeprefix("runs/") if path.startswith(JOBS_API) else None


def _refusal(status: int) -> dict[str, str]:
    """Return the body of an ordered error."""
    code = "REQUEST_LIMIT_EXCEEDED" if status == 429 else "INTERNAL_ERROR"
    return {"error_code": code, "message": "a fault that was ordered"}


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser)
    parser.add_argument("--s3", required=True, help="address of the S3 that drivers reach")
    parser.add_argument("--objects", type=Path, required=True, help="the S3 stand-in's objects, which Spark's readers see")
    parser.add_argument("--python", type=Path, required=True, help="the environments stand on its Python")
    parser.add_argument("--token", required=True, help="the personal access token that is accepted")
    parser.add_argument("--principal", default=":", help="id:secret of a service principal")
    parser.add_argument("--certificate", type=Path, help="a PEM file of the key and the certificate: it speaks TLS")
    parser.add_argument("--without-spark", action="store_true", help="tasks get no Spark session: for tests of all else")
    given = parser.parse_args()
    python, listener = given.python.absolute(), listen(given.port)
    workspace = Workspace(
        given.folder.absolute(),
        Machine(python.with_name("spark-submit"), python, given.s3),
        given.objects.absolute(),
        f"{'https' if given.certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}",
        pace=Pace(given.state_seconds, given.minute_seconds),
        has_spark=not given.without_spark,
    )
    name, _, secret = given.principal.partition(":")
    service = Databricks(workspace, given.token, {name: secret} if name else {})
    serve(listener, service.application(), workspace.address, given.address_file, certificate=given.certificate)


if __name__ == "__main__":
    main()
