"""The Databricks stand-in: a workspace's Jobs, Files and Workspace API on loopback, whose runs are truly executed.

A process of its own. What it does not know it refuses with the API's error, and it never tells of success without work.
"""

import argparse
import json
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from email.utils import formatdate
from html import escape
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from orchard_sandbox.cluster import VOLUME
from orchard_sandbox.databricks_compute import Workspace
from orchard_sandbox.databricks_files import Environments, MissingError, Mounts, Volumes
from orchard_sandbox.databricks_jobs import Jobs
from orchard_sandbox.databricks_log_in import LogIns
from orchard_sandbox.databricks_requests import ApiError, check_request, given_of, invalid, is_true
from orchard_sandbox.databricks_runs import Record, Run, now
from orchard_sandbox.databricks_workspace import PREFIX, WorkspaceFiles
from orchard_sandbox.faults import Faults
from orchard_sandbox.job_runs import Pace
from orchard_sandbox.s3_stand_in import listen, write_address
from orchard_sandbox.submitted_job import Machine

_JOBS = "/api/2.2/jobs/"


class Databricks:
    """The workspace: its runs, volumes and log-ins.

    Args:
        workspace: what runs draw on.
        token: a personal access token that is accepted.
        principals: service principals' secrets by id.
    """

    def __init__(self, workspace: Workspace, token: str, principals: dict[str, str]) -> None:
        self._workspace = workspace
        self._log_ins = LogIns(workspace.address, token, principals)
        self._lock = threading.Lock()
        self._runs: dict[int, Run] = {}
        self._jobs = Jobs(workspace.folder.parent / "jobs")
        workspace.volumes.make(VOLUME)
        for folder in sorted(workspace.folder.glob("*/run.json")):
            run = Run(Record.read(folder.parent), workspace)
            self._runs[run.record.run_id] = run
            if not run.is_over:
                run.lose()

    def answer(self, request: Request) -> Response:
        """Answer a request; the WSGI application."""
        try:
            return self._route(request)
        except ApiError as error:
            return _json({"error_code": error.code, "message": str(error)}, error.status)

    def _route(self, request: Request) -> Response:
        path = request.path
        if path == "/" and "run" in request.args:
            return self._page(request)
        if path.startswith(("/oidc/", "/.well-known/")):
            return _json(*self._log_ins.answer(request))
        self._log_ins.check(request)
        if path.startswith("/api/2.0/fs/"):
            return self._files(request)
        if path.startswith(PREFIX):
            found = self._workspace.files.answer(request)
            return Response(found, mimetype="application/octet-stream") if isinstance(found, bytes) else _json(found)
        name = path.removeprefix(_JOBS)
        calls: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
            ("POST", "runs/submit"): self.submit,
            ("GET", "runs/get"): lambda given: self._run(given).shown(),
            ("GET", "runs/get-output"): self._output,
            ("GET", "runs/list"): self._list,
            ("POST", "runs/cancel"): self._cancel,
            ("POST", "create"): self._jobs.create,
            ("GET", "get"): self._jobs.get,
            ("GET", "list"): self._jobs.list,
            ("POST", "delete"): self._jobs.delete,
            ("POST", "run-now"): self._run_now,
        }
        if not path.startswith(_JOBS) or (request.method, name) not in calls:
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {path}'")
        return _json(calls[request.method, name](given_of(request)))

    def submit(self, given: dict[str, Any]) -> dict[str, Any]:
        """Start a run, or return the one that the token started, however it ended."""
        check_request(given)
        return {"run_id": self._start(given).record.run_id}

    def _run_now(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self._start(self._jobs.request(given), int(given["job_id"]))
        return {"run_id": run.record.run_id, "number_in_job": run.record.run_id}

    def _start(self, given: dict[str, Any], job_id: int | None = None) -> Run:
        token = given.get("idempotency_token")
        with self._lock:
            is_busy = job_id is not None and any(run.record.job_id == job_id and not run.is_over for run in self._runs.values())
            known = [run for run in self._runs.values() if token and run.record.request.get("idempotency_token") == token]
            if known:
                return known[0]
            number = max(self._runs, default=1000) + 10
            run = Run(Record(number, given, now(), job_id=job_id), self._workspace)
            run.folder.mkdir(parents=True)
            run.record.write(run.folder)
            self._runs[number] = run
        if is_busy:
            run.skip()
        else:
            run.start()
        return run

    def _run(self, given: dict[str, Any]) -> Run:
        try:
            number = int(given["run_id"])
        except (KeyError, ValueError) as error:
            raise invalid("run_id is missing or no number") from error
        run = self._runs.get(number) or self._runs.get(number - 1)
        if run is None:
            raise invalid(f"Run {number} does not exist.")
        return run

    def _output(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self._run(given)
        if int(given["run_id"]) != run.task_run_id:
            raise invalid("Retrieving the output of runs with multiple tasks is not supported. Retrieve each task's output.")
        return run.output()

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = {"active_only", "completed_only", "limit", "run_type", "expand_tasks", "page_token", "offset"}
        if given.keys() - wanted:
            raise invalid(f"{sorted(given.keys() - wanted)} is not known here")
        is_active, is_completed = (is_true(given, name) for name in ("active_only", "completed_only"))
        runs = [run for run in self._runs.values() if not (is_active and run.is_over) and not (is_completed and not run.is_over)]
        shown = [run.shown() for run in reversed(runs)]
        for one in shown:
            if not is_true(given, "expand_tasks"):
                one.pop("tasks")
        first, limit = int(given.get("page_token") or 0), int(given.get("limit") or 20)
        more = {"next_page_token": str(first + limit)} if len(shown) > first + limit else {}
        return {"runs": shown[first : first + limit], "has_more": bool(more), **more}

    def _cancel(self, given: dict[str, Any]) -> dict[str, Any]:
        self._run(given).cancel()
        return {}

    def _files(self, request: Request) -> Response:
        kind, _, rest = request.path.removeprefix("/api/2.0/fs/").partition("/")
        try:
            path = self._workspace.volumes.path(f"/{rest}")
        except MissingError as error:
            raise ApiError(404, "NOT_FOUND", str(error)) from error
        if (kind, request.method) == ("directories", "PUT"):
            path.mkdir(parents=True, exist_ok=True)
            return Response(status=204)
        if kind != "files" or request.method not in ("GET", "HEAD", "PUT"):
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        if request.method == "PUT":
            return self._upload(request, path)
        if not path.is_file():
            raise ApiError(404, "NOT_FOUND", f"/{rest} does not exist.")
        modified = formatdate(path.stat().st_mtime, usegmt=True)
        answer = Response(path.read_bytes(), mimetype="application/octet-stream", headers={"Last-Modified": modified})
        return answer

    @staticmethod
    def _upload(request: Request, path: Path) -> Response:
        if not path.parent.is_dir():
            raise ApiError(404, "NOT_FOUND", f"The folder of {request.path} does not exist.")
        if path.exists() and request.args.get("overwrite") != "true":
            raise ApiError(409, "ALREADY_EXISTS", f"{request.path} is there.")
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        fresh.write_bytes(request.get_data())
        fresh.replace(path)
        return Response(status=204)

    def _page(self, request: Request) -> Response:
        run = self._runs.get(int(request.args["run"]))
        if run is None:
            return Response("no such run", 404)
        state = run.shown()["state"]
        head = f"<h1>Run {run.record.run_id}: {state.get('result_state', state['life_cycle_state'])}</h1>"
        logs = "".join(f"<h2>{name}</h2><pre>{escape(run.log_text(name))}</pre>" for name in ("stderr", "stdout"))
        return Response(f"{head}<p>{escape(state['state_message'])}</p>{logs}", mimetype="text/html")


def _json(found: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(found), status, mimetype="application/json")


def operation_of(environ: dict[str, Any]) -> str | None:
    """Return the call's name for faults: `submit`, `get`, ... of runs, `run-now`, ... of jobs; None for all else."""
    path = str(environ["PATH_INFO"])
    return path.removeprefix(_JOBS).removeprefix("runs/") if path.startswith(_JOBS) else None


def start_server(
    workspace: Workspace, listener: socket.socket, token: str, principals: dict[str, str], certificate: Path | None = None
) -> BaseWSGIServer:
    """Return a server on a listening socket, of which it takes a copy; it speaks TLS when it has a certificate with its key."""
    service = Databricks(workspace, token, principals)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return service.answer(Request(environ))(environ, start_response)

    wrapped = workspace.faults.wrap(application, operation_of, refusal)
    tls = (str(certificate), str(certificate)) if certificate else None
    return make_server("127.0.0.1", listener.getsockname()[1], wrapped, threaded=True, fd=listener.fileno(), ssl_context=tls)


def refusal(status: int) -> dict[str, str]:
    """Return the body of an ordered error."""
    code = "REQUEST_LIMIT_EXCEEDED" if status == 429 else "INTERNAL_ERROR"
    return {"error_code": code, "message": "a fault that was ordered"}


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="keeps runs, volumes, workspace files and environments")
    parser.add_argument("--address-file", type=Path, required=True, help="written once the server listens")
    parser.add_argument("--port", type=int, default=0, help="tried first")
    parser.add_argument("--s3", required=True, help="address of the S3 that drivers reach")
    parser.add_argument("--objects", type=Path, required=True, help="the S3 stand-in's objects, which Spark's readers see")
    parser.add_argument("--python", type=Path, required=True, help="the environments stand on its Python")
    parser.add_argument("--token", required=True, help="the personal access token that is accepted")
    parser.add_argument("--principal", default=":", help="id:secret of a service principal")
    parser.add_argument("--certificate", type=Path, help="a PEM file of the key and the certificate: it speaks TLS")
    parser.add_argument("--state-seconds", type=float, default=Pace.state_seconds, help="how long a state on the way lasts")
    parser.add_argument("--minute-seconds", type=float, default=Pace.minute_seconds, help="how long a minute of a time-out lasts")
    parser.add_argument("--without-spark", action="store_true", help="tasks get no Spark session: for tests of all else")
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    python, folder = given.python.absolute(), given.folder.absolute()
    listener = listen(given.port)
    workspace = Workspace(
        folder=folder / "runs",
        machine=Machine(python.with_name("spark-submit"), python, given.s3),
        volumes=Volumes(folder / "volumes"),
        files=WorkspaceFiles(folder / "workspace"),
        environments=Environments(folder / "environments", python),
        mounts=Mounts(folder / "s3", given.objects.absolute()),
        pace=Pace(given.state_seconds, given.minute_seconds),
        faults=Faults(),
        address=f"{'https' if given.certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}",
        has_spark=not given.without_spark,
    )
    workspace.folder.mkdir(parents=True, exist_ok=True)
    name, _, secret = given.principal.partition(":")
    with listener:
        server = start_server(workspace, listener, given.token, {name: secret} if name else {}, given.certificate)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    write_address(given.address_file, workspace.address)
    server.serve_forever()


if __name__ == "__main__":
    main()
