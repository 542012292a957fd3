"""EMR Serverless for the stand-in: applications, and job runs that execute what is submitted.

They and their client tokens outlive the process. Requests are the concern of `serverless_api`.
"""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchard_sandbox.emr.api import ApiError
from orchard_sandbox.emr.serverless_requests import check_application, read_job
from orchard_sandbox.emr.serverless_runs import DETAILS, JobRun
from orchard_sandbox.emr.submissions import RequestError
from orchard_sandbox.job_execution.control import RUN_QUERY
from orchard_sandbox.job_execution.faults import Faults
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import LifeCycle, Pace
from orchard_sandbox.job_execution.records import Record, now
from orchard_sandbox.s3.landing import ACCOUNT, REGION

_NEXT = {"STARTING": "STARTED", "STOPPING": "STOPPED"}


@dataclass(kw_only=True)
class Application(Record):
    """An application.

    Attributes:
        shown: as the API shows it, less its state.
        token: the client token that it was asked for with.
        request: digest of the request.
        used: when it last changed or had a job (monotonic).
    """

    shown: dict[str, Any]
    token: str
    request: str
    used: float = field(default_factory=time.monotonic, init=False)

    def move(self, state: str) -> None:
        """Enter a state."""
        self.shown["updatedAt"], self.used = now(), time.monotonic()
        self.change(state)

    def show(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {**self.shown, "state": self.state}

    def require(self, *states: str) -> None:
        """Raise RequestError unless it is in one of the states."""
        if self.state not in states:
            raise RequestError(
                f"Application {self.id} must be in one of the following statuses [{', '.join(states)}]. "
                f"Current status: {self.state}"
            )


Known = TypeVar("Known", Application, JobRun)


class EmrServerless:
    """All applications and job runs, which are kept in a folder."""

    def __init__(self, folder: Path, machine: Machine, pace: Pace, faults: Faults) -> None:
        self._folder, self._machine, self._pace, self._faults = folder, machine, pace, faults
        self.lock = threading.RLock()
        self.applications = {one.id: one for one in Application.read_all(folder / "applications")}
        self.runs = {one.id: one for one in JobRun.read_all(folder / "jobs")}
        for application in self.applications.values():
            application.change(_NEXT.get(application.state, application.state))
        for run in self.runs.values():
            if not run.is_over:
                run.move("FAILED", "The stand-in ended while the job run was under way, and its processes with it.")

    def find(self, name: str) -> Record | None:
        """Return an application or a job run of any application."""
        return self.applications.get(name) or self.runs.get(name)

    def create_application(self, given: Mapping[str, Any]) -> Application:
        """Create an application, or return the one that the client token created before."""
        check_application(given)
        with self.lock:
            if known := _of_token(self.applications.values(), given):
                return known
            name = "00" + secrets.token_hex(7)
            shown = {
                "autoStartConfiguration": {"enabled": True},
                "autoStopConfiguration": {"enabled": True, "idleTimeoutMinutes": 15},
                "architecture": "X86_64",
                **{key: value for key, value in given.items() if key != "clientToken" and value is not None},
                "applicationId": name,
                "type": "Spark",
                "arn": f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{name}",
                "createdAt": now(),
                "updatedAt": now(),
            }
            kept = {"shown": shown, "token": given["clientToken"], "request": _digest(given)}
            made = Application(folder=self._folder / "applications" / name, states=["CREATED"], **kept)
            made.save()
            self.applications[name] = made
            return made

    def application(self, name: str) -> Application:
        """Return an application in its present state."""
        if name not in self.applications:
            raise ApiError("ResourceNotFoundException", f"Application {name} does not exist")
        found = self.applications[name]
        with self.lock:
            self._advance(found)
        return found

    def _advance(self, application: Application) -> None:
        """Move an application to the state that is due by now."""
        idle, since = application.shown["autoStopConfiguration"], time.monotonic() - application.used
        if application.state in _NEXT and since > self._pace.state_seconds:
            application.move(_NEXT[application.state])
        if application.state != "STARTED":
            return
        if any(not run.is_over for run in self.runs_of(application.id)):
            application.used = time.monotonic()
        elif idle.get("enabled") and since > idle.get("idleTimeoutMinutes", 15) * self._pace.minute_seconds:
            application.move("STOPPED")

    def run(self, application: str, name: str) -> JobRun:
        """Return a job run of an application."""
        run = self.runs.get(name)
        if run is None or run.shown["applicationId"] != self.application(application).id:
            raise ApiError("ResourceNotFoundException", f"JobRun {name} does not exist")
        return run

    def runs_of(self, application: str) -> list[JobRun]:
        """Return all job runs of an application."""
        with self.lock:
            return [run for run in self.runs.values() if run.shown["applicationId"] == application]

    def start_job_run(self, given: Mapping[str, Any]) -> JobRun:
        """Start a job run, or return the one that the client token started before, whatever its state."""
        submission = read_job(given)
        with self.lock:
            application = self.application(given["applicationId"])
            if known := _of_token(self.runs.values(), given):
                return known
            if application.state == "TERMINATED":
                raise RequestError(f"Application {application.id} is terminated. Cannot start job run.")
            if not application.shown["autoStartConfiguration"].get("enabled"):
                application.require("STARTED")
            run = self._new_run(given, application)
            run.save()
            self.runs[run.id] = run
        run.begin(LifeCycle(self._pace, self._faults), self._machine, submission, lambda: self._has_started(application.id))
        return run

    def _new_run(self, given: Mapping[str, Any], application: Application) -> JobRun:
        name = "00" + secrets.token_hex(7)
        taken = ("releaseLabel", "type", "networkConfiguration", "imageConfiguration")
        overrides = dict(given.get("configurationOverrides") or {})
        if "monitoringConfiguration" in application.shown:
            overrides.setdefault("monitoringConfiguration", application.shown["monitoringConfiguration"])
        shown: dict[str, Any] = {
            **{key: application.shown[key] for key in taken if key in application.shown},
            **{key: given[key] for key in ("applicationId", "name", "jobDriver") if key in given},
            "jobRunId": name,
            "arn": f"{application.shown['arn']}/jobruns/{name}",
            "createdBy": f"arn:aws:iam::{ACCOUNT}:user/orchard",
            "createdAt": now(),
            "updatedAt": now(),
            "executionRole": given["executionRoleArn"],
            "state": "SUBMITTED",
            "stateDetails": DETAILS["SUBMITTED"],
            "configurationOverrides": overrides,
            "tags": given.get("tags") or {},
            "executionTimeoutMinutes": given.get("executionTimeoutMinutes", 720),
            "mode": "BATCH",
            "retryPolicy": {"maxAttempts": (given.get("retryPolicy") or {}).get("maxAttempts", 1)},
            "attempt": 1,
        }
        kept = {"shown": shown, "token": given["clientToken"], "request": _digest(given)}
        return JobRun(folder=self._folder / "jobs" / name, states=["SUBMITTED"], **kept)

    def _has_started(self, name: str) -> bool:
        """Start an application if necessary, and say whether it has started."""
        with self.lock:
            application = self.application(name)
            if application.state in ("CREATED", "STOPPED"):
                application.move("STARTING")
            return application.state == "STARTED"

    def owner(self, arn: str) -> Application | JobRun:
        """Return the application or job run of an ARN."""
        start, *names = arn.split("/")
        if start == f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:" and names[:1] == ["applications"]:
            if len(names) == 2:
                return self.application(names[1])
            if len(names) == 4 and names[2] == "jobruns":
                return self.run(names[1], names[3])
        raise ApiError("ResourceNotFoundException", f"Resource {arn} does not exist")

    def dashboard(self, run: JobRun) -> str:
        """Return the URL of a page about a job run."""
        return f"{self._machine.address}/?{RUN_QUERY}={run.id}"


def _of_token(records: Iterable[Known], given: Mapping[str, Any]) -> Known | None:
    for record in records:
        if record.token == given["clientToken"]:
            if record.request != _digest(given):
                raise ApiError("ConflictException", f"clientToken {record.token} was used with other parameters")
            return record
    return None


def _digest(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
