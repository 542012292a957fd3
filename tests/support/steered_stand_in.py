"""A stand-in that suffers faults which a test orders, in a process of its own.

`/_orchard/faults` takes a fault as a JSON object by POST, lists those that are left by GET, and takes all back by DELETE.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from orchard_sandbox.job_execution.job import GuardedJob
from orchard_sandbox.job_execution.life_cycle import Ending, Run
from pydantic import ValidationError
from werkzeug.wrappers import Request, Response

from support.ordered_faults import ANSWERS, Fault, Faults

FAULTS = "/_orchard/faults"


@dataclass(frozen=True)
class Steering:
    """How one vendor's stand-in suffers faults.

    Attributes:
        operation_of: tells from a request which operation it calls; None for one that suffers nothing.
        refusal: the JSON body of an error by its status.
        out_of_memory: what the vendor says of a driver that ran out of memory.
        minute_seconds: how long a minute of a job's time limit lasts.
        faults: those that were ordered.
    """

    operation_of: Callable[[WSGIEnvironment], str | None]
    refusal: Callable[[int], dict[str, str]]
    out_of_memory: str
    minute_seconds: float = 60.0
    faults: Faults = field(default_factory=Faults)

    def install(self, module: ModuleType) -> None:
        """Put this before what a stand-in's module serves, and into the life of each job."""
        serve, execute = vars(module)["serve"], Run.execute

        def serve_steered(listener: Any, application: WSGIApplication, *rest: Any, **named: Any) -> None:
            serve(listener, self.wrap(application), *rest, **named)

        def execute_steered(run: Run, job: GuardedJob, seconds: float = 0, *since: float) -> Ending:
            return self._execute(execute, run, job, seconds * self.minute_seconds / 60, *since)

        vars(module)["serve"] = serve_steered
        setattr(Run, execute.__name__, execute_steered)

    def _execute(self, execute: Any, run: Run, job: GuardedJob, *rest: Any) -> Ending:
        _wait_for(run, lambda: not self.faults.holds_jobs())
        if not run.is_cancelled and (fault := self.faults.take(("no_execution",))):
            _wait_for(run, _is_past(time.monotonic() + fault.seconds))
            return Ending("failed", "execution is switched off in this stand-in, nothing was run.")
        fault = None if run.is_cancelled else self.faults.take(("kill_job", "out_of_memory"))
        if fault:
            _kill_after(job, fault.seconds)
        ending: Ending = execute(run, job, *rest)
        if fault and fault.kind == "out_of_memory" and ending.kind == "failed":
            job.write_error(self.out_of_memory)
            return Ending("failed", self.out_of_memory, ending.status)
        return ending

    def wrap(self, application: WSGIApplication) -> WSGIApplication:
        """Return the WSGI application whose answers suffer the faults."""

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == FAULTS:
                return self._order(Request(environ))(environ, start_response)
            operation = self.operation_of(environ)
            fault = self.faults.take(ANSWERS, operation) if operation else None
            respond = self._suffer(fault, application, environ) if fault else application
            return respond(environ, start_response)

        return answer

    def _order(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.ordered.clear()
        elif request.method == "POST":
            try:
                self.faults.ordered.append(Fault.model_validate_json(request.get_data()))
            except ValidationError as error:
                return _json({"message": str(error)}, 400)
        return _json([fault.model_dump() for fault in list(self.faults.ordered)])

    def _suffer(self, fault: Fault, application: WSGIApplication, environ: WSGIEnvironment) -> WSGIApplication:
        if fault.kind == "delay":
            time.sleep(fault.seconds)
            return application
        if fault.kind in ("drop_after", "error_after"):
            b"".join(application(environ, lambda *_: lambda content: None))
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


def _wait_for(run: Run, is_so: Callable[[], bool]) -> None:
    """Wait until something is so, or the run is cancelled."""
    while not is_so() and not run.is_cancelled:
        time.sleep(0.02)


def _is_past(moment: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= moment


def _kill_after(job: GuardedJob, seconds: float) -> None:
    """Let a job be killed that runs for longer than the seconds."""
    start = job.start

    def start_and_kill() -> None:
        start()
        threading.Timer(seconds, job.end, [0]).start()

    setattr(job, start.__name__, start_and_kill)


def steered_environment(**added: str) -> dict[str, str]:
    """Return the environment of a steered stand-in's process."""
    from support.repository import ROOT

    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("sandbox", "tests")), **added}
