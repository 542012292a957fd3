"""The Databricks stand-in: a workspace's Jobs and Files API on loopback, whose runs are truly executed.

A process of its own. What it does not know it refuses with the API's error, and it never tells of success without work.
"""

import argparse
import base64
import json
import logging
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from html import escape
from pathlib import Path
from typing import Any

from databricks.sdk.service import jobs as api
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from orchard_sandbox.databricks_files import Environments, MissingError, Mounts, Volumes
from orchard_sandbox.databricks_runs import Record, Run, Workspace, now
from orchard_sandbox.faults import Faults
from orchard_sandbox.job_runs import Pace
from orchard_sandbox.s3_stand_in import write_address
from orchard_sandbox.submitted_job import Machine

VOLUME = "/Volumes/main/orchard/jobs"
TOKEN_SECONDS = 3600.0
_JOBS = "/api/2.2/jobs/runs/"
_TASK_FIELDS = {
    "task_key", "python_wheel_task", "environment_key", "new_cluster", "existing_cluster_id", "libraries", "timeout_seconds",
    "max_retries", "min_retry_interval_millis", "retry_on_timeout", "disable_auto_optimization", "description", "run_if",
}  # fmt: skip
_REQUEST_FIELDS = {"tasks", "run_name", "timeout_seconds", "idempotency_token", "environments", "queue"}


class ApiError(Exception):
    """The API's refusal."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def _invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


class Databricks:
    """The workspace: its runs, volumes and log-ins.

    Args:
        workspace: what runs draw on.
        token: a personal access token that is accepted.
        principals: service principals' secrets by id.
    """

    def __init__(self, workspace: Workspace, token: str, principals: dict[str, str]) -> None:
        self._workspace = workspace
        self._tokens = {token: float("inf")}
        self._principals = principals
        self._lock = threading.Lock()
        self._runs: dict[int, Run] = {}
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
            return self._log_in(request)
        self._check_token(request)
        if path.startswith("/api/2.0/fs/"):
            return self._files(request)
        name = path.removeprefix(_JOBS).replace("-", "_")
        calls: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
            ("POST", "submit"): self.submit,
            ("GET", "get"): lambda given: self._run(given).shown(),
            ("GET", "get_output"): self._output,
            ("GET", "list"): self._list,
            ("POST", "cancel"): self._cancel,
        }
        if not path.startswith(_JOBS) or (request.method, name) not in calls:
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {path}'")
        return _json(calls[request.method, name](_given(request)))

    def submit(self, given: dict[str, Any]) -> dict[str, Any]:
        """Start a run, or return the one that the token started, however it ended."""
        _check_request(given)
        token = given.get("idempotency_token")
        with self._lock:
            known = [run for run in self._runs.values() if token and run.record.request.get("idempotency_token") == token]
            if known:
                return {"run_id": known[0].record.run_id}
            number = max(self._runs, default=1000) + 10
            run = Run(Record(number, given, now()), self._workspace)
            run.folder.mkdir(parents=True)
            run.record.write(run.folder)
            self._runs[number] = run
        run.start()
        return {"run_id": number}

    def _run(self, given: dict[str, Any]) -> Run:
        try:
            number = int(given["run_id"])
        except (KeyError, ValueError) as error:
            raise _invalid("run_id is missing or no number") from error
        run = self._runs.get(number) or self._runs.get(number - 1)
        if run is None:
            raise _invalid(f"Run {number} does not exist.")
        return run

    def _output(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self._run(given)
        if int(given["run_id"]) != run.task_run_id:
            raise _invalid("Retrieving the output of runs with multiple tasks is not supported. Retrieve each task's output.")
        return run.output()

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = {"active_only", "completed_only", "limit", "run_type", "expand_tasks", "page_token", "offset"}
        if given.keys() - wanted:
            raise _invalid(f"{sorted(given.keys() - wanted)} is not known here")
        is_active, is_completed = (str(given.get(name, "false")).lower() == "true" for name in ("active_only", "completed_only"))
        runs = [run for run in self._runs.values() if not (is_active and run.is_over) and not (is_completed and not run.is_over)]
        shown = [run.shown() for run in reversed(runs)]
        for one in shown:
            if str(given.get("expand_tasks", "false")).lower() != "true":
                one.pop("tasks")
        first, limit = int(given.get("page_token") or 0), int(given.get("limit") or 20)
        more = {"next_page_token": str(first + limit)} if len(shown) > first + limit else {}
        return {"runs": shown[first : first + limit], "has_more": bool(more), **more}

    def _cancel(self, given: dict[str, Any]) -> dict[str, Any]:
        self._run(given).cancel()
        return {}

    def _log_in(self, request: Request) -> Response:
        base = self._workspace.address
        pages = {
            "/.well-known/databricks-config": {"oidc_endpoint": f"{base}/oidc", "workspace_id": "1"},
            "/oidc/.well-known/oauth-authorization-server": {
                "authorization_endpoint": f"{base}/oidc/v1/authorize",
                "token_endpoint": f"{base}/oidc/v1/token",
            },
        }
        if request.path in pages:
            return _json(pages[request.path])
        if request.path != "/oidc/v1/token" or request.method != "POST":
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"{request.path} is not known here")
        scheme, _, packed = request.headers.get("Authorization", "").partition(" ")
        name, _, secret = base64.b64decode(packed).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if not name or self._principals.get(name) != secret or request.form.get("grant_type") != "client_credentials":
            return _json({"error": "invalid_client", "error_description": "Client authentication failed"}, 401)
        token = secrets.token_urlsafe(24)
        self._tokens[token] = time.time() + TOKEN_SECONDS
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": int(TOKEN_SECONDS), "scope": "all-apis"})

    def _check_token(self, request: Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._tokens.get(token, 0.0) < time.time():
            raise ApiError(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")

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


def _given(request: Request) -> dict[str, Any]:
    """Return a call's parameters: of a GET they may stand in the query or, as Airflow's triggers send them, in a JSON body."""
    body = request.get_data()
    try:
        found = json.loads(body) if body else {}
    except ValueError as error:
        raise ApiError(400, "MALFORMED_REQUEST", f"The body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "MALFORMED_REQUEST", "The body is no JSON object")
    return {**request.args.to_dict(), **found}


def _check_request(given: dict[str, Any]) -> None:
    """Raise ApiError for what Databricks refuses, and for what is not known here."""
    _refuse_unknown(given, _REQUEST_FIELDS, "the request")
    tasks = given.get("tasks")
    if not isinstance(tasks, list) or len(tasks) != 1:
        raise _invalid("this stand-in runs exactly one task")
    if len(str(given.get("idempotency_token") or "")) > 64:
        raise _invalid("idempotency_token must have at most 64 characters.")
    (task,) = tasks
    _refuse_unknown(task, _TASK_FIELDS, "the task")
    # The SDK leaves out what it does not know; so what comes back unlike it went in holds a field that is none.
    read = [(api.SubmitTask.from_dict(task).as_dict(), task)]
    read += [(api.JobEnvironment.from_dict(one).as_dict(), one) for one in _list_of(given)]
    for known, one in read:
        if known != one:
            raise _invalid(f"there is a field that Databricks does not know in {json.dumps(one)}")
    _check_task(given, task)


def _check_task(given: dict[str, Any], task: dict[str, Any]) -> None:
    wheel = task.get("python_wheel_task")
    if not wheel or not wheel.get("package_name") or not wheel.get("entry_point") or "named_parameters" in wheel:
        raise _invalid("this stand-in runs a python_wheel_task with package_name, entry_point and parameters, and no other")
    where = [name for name in ("environment_key", "new_cluster", "existing_cluster_id") if name in task]
    if len(where) != 1:
        raise _invalid(f"a task needs one of environment_key, new_cluster and existing_cluster_id, it has {where}")
    if where == ["environment_key"]:
        _check_serverless(given, task)
    elif where == ["new_cluster"]:
        _check_cluster(task["new_cluster"])
    for library in task.get("libraries", []):
        if library.keys() not in ({"whl"}, {"pypi"}):
            raise _invalid(f"the library {library} is none that this stand-in installs: whl and pypi are")


def _list_of(given: dict[str, Any]) -> list[Any]:
    return given.get("environments") or []


def _refuse_unknown(given: Any, known: set[str], what: str) -> None:
    if not isinstance(given, dict) or given.keys() - known:
        unknown = sorted(given.keys() - known) if isinstance(given, dict) else given
        raise _invalid(f"{what} holds {unknown}, which this stand-in does not know")


def _check_serverless(given: dict[str, Any], task: dict[str, Any]) -> None:
    keys = [one.get("environment_key") for one in _list_of(given)]
    if keys.count(task["environment_key"]) != 1:
        raise _invalid(f"The environment_key '{task['environment_key']}' is not in environments.")
    if "libraries" in task:
        raise _invalid("Libraries field is not supported for serverless task, please specify libraries in environment.")
    for one in _list_of(given):
        spec = one.get("spec", {})
        if spec.keys() - {"environment_version", "client", "dependencies"} or not (
            spec.get("environment_version") or spec.get("client")
        ):
            raise _invalid(f"the environment {one} needs a spec with environment_version, and dependencies alone beside it")


def _check_cluster(cluster: dict[str, Any]) -> None:
    for name in ("spark_version", "node_type_id"):
        if not cluster.get(name):
            raise _invalid(f"Missing required field: new_cluster.{name}")
    if ("num_workers" in cluster) == ("autoscale" in cluster):
        raise _invalid("new_cluster needs one of num_workers and autoscale")
    if not re.fullmatch(r"\d+\.\d+\.x(-[a-z]+)*-scala2\.1[23]", cluster["spark_version"]):
        raise _invalid(f"Invalid spark version {cluster['spark_version']}.")


def _json(found: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(found), status, mimetype="application/json")


def operation_of(environ: dict[str, Any]) -> str | None:
    """Return the call's name for faults: `submit`, `get`, `get-output`, ...; None for what is no call of the Jobs API."""
    path = str(environ["PATH_INFO"])
    return path.removeprefix(_JOBS) if path.startswith(_JOBS) else None


def start_server(workspace: Workspace, port: int, token: str, principals: dict[str, str]) -> BaseWSGIServer:
    """Return a listening server."""
    service = Databricks(workspace, token, principals)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return service.answer(Request(environ))(environ, start_response)

    return make_server("127.0.0.1", port, workspace.faults.wrap(application, operation_of, refusal), threaded=True)


def refusal(status: int) -> dict[str, str]:
    """Return the body of an ordered error."""
    code = "REQUEST_LIMIT_EXCEEDED" if status == 429 else "INTERNAL_ERROR"
    return {"error_code": code, "message": "a fault that was ordered"}


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="keeps runs, volumes and environments")
    parser.add_argument("--address-file", type=Path, required=True, help="written once the server listens")
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    parser.add_argument("--s3", required=True, help="address of the S3 that drivers reach")
    parser.add_argument("--objects", type=Path, required=True, help="the S3 stand-in's objects, which Spark's readers see")
    parser.add_argument("--python", type=Path, required=True, help="the environments stand on its Python")
    parser.add_argument("--token", required=True, help="the personal access token that is accepted")
    parser.add_argument("--principal", default=":", help="id:secret of a service principal")
    parser.add_argument("--state-seconds", type=float, default=Pace.state_seconds, help="how long a state on the way lasts")
    parser.add_argument("--minute-seconds", type=float, default=Pace.minute_seconds, help="how long a minute of a time-out lasts")
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    python, folder = given.python.absolute(), given.folder.absolute()
    workspace = Workspace(
        folder=folder / "runs",
        machine=Machine(python.with_name("spark-submit"), python, given.s3),
        volumes=Volumes(folder / "volumes"),
        environments=Environments(folder / "environments", python),
        mounts=Mounts(folder / "s3", given.objects.absolute()),
        pace=Pace(given.state_seconds, given.minute_seconds),
        faults=Faults(),
        address=f"http://127.0.0.1:{given.port}",
    )
    workspace.folder.mkdir(parents=True, exist_ok=True)
    name, _, secret = given.principal.partition(":")
    server = start_server(workspace, given.port, given.token, {name: secret} if name else {})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    write_address(given.address_file, server.port)
    server.serve_forever()


if __name__ == "__main__":
    main()
