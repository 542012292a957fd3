"""The Databricks stand-in: a workspace's runs, which are truly executed, and the files on its volumes, on loopback.

A process of its own. The personal access token that it accepts is DATABRICKS_TOKEN in its own environment. What it does not know
it refuses with the API's error, and it never reports success without work.
"""

import argparse
import hmac
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.wrappers import Request, Response

from orchard_sandbox.databricks import VOLUME
from orchard_sandbox.databricks.compute import Workspace
from orchard_sandbox.databricks.jobs import Jobs
from orchard_sandbox.databricks.requests import ApiError, given_of
from orchard_sandbox.databricks.volumes import FILES_API
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.run_pages import with_run_pages
from orchard_sandbox.job_execution.serving import add_options, listen, serve
from orchard_sandbox.s3.landing import s3_environment

# Of the S3 that drivers reach.
_S3 = ("ENDPOINT_URL", "SECRET_ACCESS_KEY")


class Databricks:
    """A workspace's API."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        self._workspace, self._token = workspace, token
        self.jobs = Jobs(workspace)
        workspace.volumes.make(VOLUME)
        self.calls = self.jobs.calls()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as a WSGI application."""
        return self.answer(Request(environ))(environ, start_response)

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return self.route(request)
        except ApiError as error:
            return as_json({"error_code": error.code, "message": str(error)}, error.status)

    def accepts(self, token: str) -> bool:
        """Say whether a token is good."""
        return hmac.compare_digest(token, self._token)

    def route(self, request: Request) -> Response:
        """Answer a request, or raise ApiError."""
        if not self.accepts(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            raise ApiError(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")
        if request.path.startswith(FILES_API):
            return self._workspace.volumes.answer(request)
        if (request.method, request.path) not in self.calls:
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        return as_json(self.calls[request.method, request.path](given_of(request)))


def as_json(found: dict[str, Any], status: int = 200) -> Response:
    """Return an answer of the API."""
    return Response(json.dumps(found), status, mimetype="application/json")


def main(service: type[Databricks] = Databricks) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser)
    parser.add_argument("--objects", type=Path, required=True, help="the S3 stand-in's objects, which Spark's readers see")
    parser.add_argument("--python", type=Path, required=True, help="the environments stand on its Python")
    parser.add_argument("--certificate", type=Path, help="a PEM file of the key and the certificate: it speaks TLS")
    parser.add_argument("--without-spark", action="store_true", help="tasks get no Spark session: for tests of all else")
    given = parser.parse_args()
    python, listener = given.python.absolute(), listen(given.port)
    workspace = Workspace(
        given.folder.absolute(),
        Machine(python.with_name("spark-submit"), python, s3_environment(*(os.environ[f"AWS_{name}"] for name in _S3))),
        given.objects.absolute(),
        f"{'https' if given.certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}",
        has_spark=not given.without_spark,
    )
    served = service(workspace, os.environ["DATABRICKS_TOKEN"])
    pages = with_run_pages(served, served.jobs.find)
    serve(listener, pages, workspace.address, given.address_file, certificate=given.certificate)


if __name__ == "__main__":
    main()
