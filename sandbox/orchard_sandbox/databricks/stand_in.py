"""The Databricks stand-in: a workspace's runs, which are truly executed, and the files on its volumes, on loopback.

A process of its own. The personal access token that it accepts is DATABRICKS_TOKEN in its own environment. What it does not know
it refuses with the API's error, and it never reports success without work.
"""

import argparse
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.wrappers import Request, Response

from orchard_sandbox.databricks import VOLUME
from orchard_sandbox.databricks.job_runs import DatabricksRun, now
from orchard_sandbox.databricks.requests import ApiError, check_request, given_of, invalid
from orchard_sandbox.databricks.task_compute import Workspace
from orchard_sandbox.databricks.volumes import FILES_API
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.run_pages import with_run_pages
from orchard_sandbox.job_execution.serving import add_options, listen, serve
from orchard_sandbox.s3.landing import s3_environment

RUNS_API = "/api/2.2/jobs/runs/"
Given = dict[str, Any]
# Of the S3 that drivers reach.
_S3 = ("ENDPOINT_URL", "SECRET_ACCESS_KEY")


class Databricks:
    """A workspace's API: its runs, and the files on its volumes."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        self._workspace, self._token = workspace, token
        workspace.volumes.make(VOLUME)
        self._folder, self._lock = workspace.folder / "runs", threading.Lock()
        self._runs = DatabricksRun.restored(self._folder)
        self._calls: dict[tuple[str, str], Callable[[Given], Given]] = {
            ("POST", f"{RUNS_API}submit"): self._submit,
            ("GET", f"{RUNS_API}get"): lambda given: self._run(given).show(workspace.address),
            ("GET", f"{RUNS_API}get-output"): self._output,
            ("POST", f"{RUNS_API}cancel"): self._cancel,
        }

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
        if (request.method, request.path) not in self._calls:
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        return as_json(self._calls[request.method, request.path](given_of(request)))

    def find(self, name: str) -> DatabricksRun | None:
        """Return a run by its number."""
        return self._runs.get(name)

    def _submit(self, given: Given) -> Given:
        """Start a run, or return the run that the token started before, whatever its state."""
        check_request(given)
        token = given.get("idempotency_token")
        with self._lock:
            known = [run for run in self._runs.values() if token and run.request.get("idempotency_token") == token]
            if known:
                return {"run_id": known[0].run_id}
            used = [int(path.name) for path in self._folder.glob("[0-9]*")]  # of other releases, too
            number = max(used, default=1000) + 10
            run = DatabricksRun(
                folder=self._folder / str(number), states=["PENDING"], run_id=number, request=given, start_time=now()
            )
            run.save()
            self._runs[run.id] = run
        run.start(self._workspace)
        return {"run_id": number}

    def _run(self, given: Given) -> DatabricksRun:
        """Return a run by its own number, or by that of its task."""
        number = str(given.get("run_id"))
        for run in list(self._runs.values()):
            if number in (str(run.run_id), str(run.task_run_id)):
                return run
        raise invalid(f"Run {number} does not exist.")

    def _output(self, given: Given) -> Given:
        run = self._run(given)
        if str(given["run_id"]) != str(run.task_run_id):
            raise invalid("Retrieving the output of runs with multiple tasks is not supported. Retrieve each task's output.")
        return dict(run.output())

    def _cancel(self, given: Given) -> Given:
        self._run(given).cancel()
        return {}


def as_json(found: dict[str, Any], status: int = 200) -> Response:
    """Return an answer of the API."""
    return Response(json.dumps(found), status, mimetype="application/json")


def main(service: type[Databricks] = Databricks) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser)
    parser.add_argument("--objects", type=Path, required=True, help="the S3 stand-in's objects, which Spark's readers see")
    parser.add_argument("--python", type=Path, required=True, help="the environments stand on its Python")
    parser.add_argument("--without-spark", action="store_true", help="tasks get no Spark session: for tests of all else")
    given = parser.parse_args()
    listener = listen(given.port)
    workspace = Workspace(
        given.folder.absolute(),
        Machine.beside(given.python, s3_environment(*(os.environ[f"AWS_{name}"] for name in _S3))),
        given.objects.absolute(),
        f"http://127.0.0.1:{listener.getsockname()[1]}",
        has_spark=not given.without_spark,
    )
    served = service(workspace, os.environ["DATABRICKS_TOKEN"])
    pages = with_run_pages(served, served.find)
    serve(listener, pages, workspace.address, given.address_file)


if __name__ == "__main__":
    main()
