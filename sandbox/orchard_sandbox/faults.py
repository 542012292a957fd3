"""Faults on demand: what a test asks for over the control path, the stand-in's answers and jobs then suffer.

`POST /_orchard/faults` with a JSON object orders one, `GET` lists what is left of them, `DELETE` takes all back.
It knows no service but how AWS's requests name their operation, and how AWS tells an error.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from botocore.session import get_session

from orchard_sandbox.errors import SandboxError

CONTROL_PATH = "/_orchard/faults"
ANSWERS = ("throttle", "error", "error_after", "delay", "drop_before", "drop_after")
JOBS = ("kill_job", "out_of_memory", "no_execution")
Application = Callable[..., Iterable[bytes]]
OperationOf = Callable[[dict[str, Any]], str | None]
Refusal = Callable[[int], dict[str, str]]


@dataclass
class Fault:
    """An ordered fault.

    Attributes:
        kind: of answers, `throttle` (429), `error` (500), `error_after` (500 although it took effect), `delay`, `drop_before` and
            `drop_after` (the connection is closed without an answer, before or after the call took effect); of jobs, `kill_job`
            (SIGKILL while it runs), `out_of_memory` (as AWS ends such a driver) and `no_execution` (it fails, nothing was run).
        operation: whose answers suffer, as `StartJobRun`; `*` for all. Means nothing for a job.
        times: how many calls or jobs suffer; 0 for all until it is taken back.
        seconds: of `delay`; the Retry-After of `throttle`; how long a job runs, or seems to, before it is ended.
    """

    kind: str
    operation: str = "*"
    times: int = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        """Raise SandboxError for a fault that is none."""
        if self.kind not in ANSWERS + JOBS:
            raise SandboxError(f"{self.kind!r} is no fault: give one of {', '.join(ANSWERS + JOBS)}")
        if not isinstance(self.operation, str) or not isinstance(self.times, int) or self.times < 0:
            raise SandboxError(f"operation {self.operation!r} must be a name and times {self.times!r} a number from 0 on")
        if not isinstance(self.seconds, int | float) or self.seconds < 0:
            raise SandboxError(f"seconds {self.seconds!r} must be a number from 0 on")


class Faults:
    """The ordered faults, first come, first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[Fault] = []

    def order(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._ordered.append(fault)

    def clear(self) -> None:
        """Take all back."""
        with self._lock:
            self._ordered.clear()

    def left(self) -> list[Fault]:
        """Return what was ordered and has not been suffered yet."""
        with self._lock:
            return list(self._ordered)

    def take(self, kinds: Iterable[str], operation: str = "*") -> Fault | None:
        """Return the next fault of the kinds for the operation, and count it as suffered."""
        with self._lock:
            for fault in self._ordered:
                if fault.kind in kinds and fault.operation in ("*", operation):
                    if fault.times == 1:
                        self._ordered.remove(fault)
                    fault.times = max(fault.times - 1, 0)
                    return fault
        return None

    def wrap(self, application: Application, operation_of: OperationOf, refusal: Refusal) -> Application:
        """Return the WSGI application with the faults and their control path.

        Args:
            application: what answers.
            operation_of: tells from a request which operation it calls; None for one that suffers nothing.
            refusal: the JSON body of an error by its status.
        """

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] == CONTROL_PATH:
                return self._control(environ, start_response)
            operation = operation_of(environ)
            fault = self.take(ANSWERS, operation) if operation else None
            if fault is None:
                return application(environ, start_response)
            return _suffer(fault, application, environ, start_response, refusal)

        return answer

    def _control(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status = "200 OK"
        try:
            if environ["REQUEST_METHOD"] == "POST":
                self.order(_read_fault(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))))
            elif environ["REQUEST_METHOD"] == "DELETE":
                self.clear()
            body = json.dumps([asdict(fault) for fault in self.left()])
        except SandboxError as error:
            status, body = "400 Bad Request", json.dumps({"message": str(error)})
        start_response(status, [("Content-Type", "application/json")])
        return [body.encode()]


def _read_fault(body: bytes) -> Fault:
    try:
        given = json.loads(body)
    except ValueError as error:
        raise SandboxError(f"the body is no JSON: {error}") from error
    known = {field.name for field in fields(Fault)}
    if not isinstance(given, dict) or "kind" not in given or given.keys() - known:
        raise SandboxError(f"{given!r} is no fault: give a JSON object with kind and, if need be, operation, times and seconds")
    return Fault(**given)


def aws_refusal(status: int) -> dict[str, str]:
    """Return the body of an AWS error."""
    code = "ThrottlingException" if status == 429 else "InternalServerException"
    return {"__type": code, "message": "a fault that was ordered"}


def aws_operation(environ: dict[str, Any]) -> str | None:
    """Return the name of the AWS operation that a request calls; None when it calls S3 or nothing that is known here."""
    target: str = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return target.rpartition(".")[2]
    if "/emr-serverless/" not in environ.get("HTTP_AUTHORIZATION", ""):
        return None
    path = environ["PATH_INFO"]
    names = (name for method, pattern, name in _ROUTES if method == environ["REQUEST_METHOD"] and pattern.fullmatch(path))
    return next(names, None)


def _routes() -> list[tuple[str, re.Pattern[str], str]]:
    model = get_session().get_service_model("emr-serverless")
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        member = ".+" if "Arn" in http["requestUri"] else "[^/]+"  # an ARN in a path holds slashes
        routes.append((http["method"], re.compile(re.sub(r"\{\w+\}", member, http["requestUri"])), name))
    return routes


_ROUTES = _routes()


def _suffer(
    fault: Fault, application: Application, environ: dict[str, Any], start_response: Any, refusal: Refusal
) -> Iterable[bytes]:
    if fault.kind == "delay":
        time.sleep(fault.seconds)
        return application(environ, start_response)
    if fault.kind in ("drop_after", "error_after"):
        b"".join(application(environ, lambda *_: None))
    if fault.kind.startswith("drop"):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError  # werkzeug then sends nothing
    status, headers = (429, [("Retry-After", f"{fault.seconds:.0f}")]) if fault.kind == "throttle" else (500, [])
    body = refusal(status)
    code = [("x-amzn-ErrorType", body["__type"])] if "__type" in body else []
    reason = "Too Many Requests" if status == 429 else "Internal Server Error"
    start_response(f"{status} {reason}", [("Content-Type", "application/json"), *code, *headers])
    return [json.dumps(body).encode()]
