"""Endpoints of a stand-in beside the vendor's API: faults to order, the states of a record, and pages of runs.

`/_orchard/faults` takes a fault as a JSON object by POST, lists those that are left by GET, and takes all back by DELETE.
`/_orchard/states/<id>` lists every state of a record in order. `?orchard-run=<id>` is a page with a run's log, at any path:
Airflow's links put their own path into such a URL.
"""

import json
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from werkzeug.wrappers import Request, Response

from orchard_sandbox.job_execution.faults import ANSWERS, Fault, Faults
from orchard_sandbox.job_execution.records import Record

FAULTS, STATES, RUN_QUERY = "/_orchard/faults", "/_orchard/states/", "orchard-run"
Application = Callable[..., Iterable[bytes]]


@dataclass(kw_only=True)
class RunRecord(Record):
    """The record of a run, which wrote logs."""

    @property
    def log_folder(self) -> Path:
        """The folder of its latest attempt's `stdout` and `stderr`."""
        return self.folder / "task"

    def log_text(self, name: str) -> str:
        """Return what the run wrote to `stdout` or `stderr`."""
        path = self.log_folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def headline(self) -> tuple[str, str]:
        """Return what it came to, and what is said about that."""
        return self.state, ""


@dataclass(frozen=True)
class Control:
    """What stands before a vendor's API.

    Attributes:
        faults: what answers suffer.
        find: returns a record by its id.
        operation_of: tells from a request which operation it calls; None for one that suffers nothing.
        refusal: the JSON body of an error by its status.
    """

    faults: Faults
    find: Callable[[str], Record | None]
    operation_of: Callable[[dict[str, Any]], str | None]
    refusal: Callable[[int], dict[str, str]]

    def wrap(self, application: Application) -> Application:
        """Return the WSGI application with all this before it."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            own = self._own_answer(environ)
            if own is not None:
                return own(environ, start_response)
            operation = self.operation_of(environ)
            fault = self.faults.take(ANSWERS, operation) if operation else None
            respond = self._suffer(fault, application, environ) if fault else application
            return respond(environ, start_response)

        return answer

    def _own_answer(self, environ: dict[str, Any]) -> Response | None:
        path = environ["PATH_INFO"]
        if path == FAULTS:
            return self._order(Request(environ))
        if path.startswith(STATES):
            found = self.find(path.removeprefix(STATES))
            return _json(found.states if found else {"message": "no such record"}, 200 if found else 404)
        if RUN_QUERY in environ.get("QUERY_STRING", ""):
            run = self.find(Request(environ).args.get(RUN_QUERY, ""))
            return _page(run, path) if isinstance(run, RunRecord) else Response("no such run", 404)
        return None

    def _order(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.ordered.clear()
        elif request.method == "POST":
            try:
                self.faults.ordered.append(Fault.model_validate_json(request.get_data()))
            except ValidationError as error:
                return _json({"message": str(error)}, 400)
        return _json([fault.model_dump() for fault in list(self.faults.ordered)])

    def _suffer(self, fault: Fault, application: Application, environ: dict[str, Any]) -> Application:
        if fault.kind == "delay":
            time.sleep(fault.seconds)
            return application
        if fault.kind in ("drop_after", "error_after"):
            b"".join(application(environ, lambda *_: None))
        if fault.kind.startswith("drop"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError  # werkzeug then sends nothing
        status, headers = (429, {"Retry-After": f"{fault.seconds:.0f}"}) if fault.kind == "throttle" else (500, {})
        body = self.refusal(status)
        if "__type" in body:
            headers["x-amzn-ErrorType"] = body["__type"]
        return _json(body, status, headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, mimetype="application/json")


def _page(run: RunRecord, path: str) -> Response:
    streams = [name for name in ("stdout", "stderr") if path == f"/logs/SPARK_DRIVER/{name}.gz"] or ["stderr", "stdout"]
    outcome, details = run.headline()
    head = f"<h1>{run.id}: {outcome}</h1><p>{escape(details)}</p>"
    logs = "".join(f"<h2>{name}</h2><pre>{escape(run.log_text(name))}</pre>" for name in streams)
    return Response(head + logs, mimetype="text/html")
