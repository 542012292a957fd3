"""EMR Serverless for the stand-in: applications, and job runs that execute what is submitted.

They and their client tokens outlive the process. Requests are the concern of `serverless_api`.
"""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchard_sandbox.emr.api import ApiError
from orchard_sandbox.emr.serverless_requests import check_application, read_job
from orchard_sandbox.emr.serverless_runs import DETAILS, JobRun
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import LifeCycle
from orchard_sandbox.job_execution.records import Record, now
from orchard_sandbox.job_execution.run_pages import RUN_QUERY
from orchard_sandbox.s3.landing import ACCOUNT, REGION


@dataclass(kw_only=True)
class Application(Record):
    """An application.

    Attributes:
        shown: as the API shows it, less its state.
        token: the client token that it was asked for with.
        request: digest of the request.
    """

    shown: dict[str, Any]
    token: str
    request: str

    def move(self, state: str) -> None:
        """Enter a state."""
        self.shown["updatedAt"] = now()
        self.change(state)

    def show(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {**self.shown, "state": self.state}


Known = TypeVar("Known", Application, JobRun)


class EmrServerless:
    """All applications and job runs, which are kept in a folder."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder, self._machine = folder, machine
        self.lock = threading.RLock()
        self.applications = {one.id: one for one in Application.read_all(folder / "applications")}
        self.runs = {one.id: one for one in JobRun.read_all(folder / "jobs")}
        for application in self.applications.values():
            if application.state in ("STARTING", "STOPPING"):
                application.change("STOPPED")
        for run in self.runs.values():
            if not run.is_over:
                run.move("FAILED", "The stand-in ended while the job run was under way, and its processes with it.")

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
        return self.applications[name]

    def start_application(self, name: str) -> Application:
        """Start an application unless it has started, which takes as long as a state lasts."""
        with self.lock:
            application = self.application(name)
            if application.state in ("CREATED", "STOPPED"):
                application.move("STARTING")
                threading.Timer(LifeCycle.state_seconds, application.move, ["STARTED"]).start()
        return application

    def _has_started(self, name: str) -> bool:
        return self.start_application(name).state == "STARTED"

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
            run = self._new_run(given, application)
            run.save()
            self.runs[run.id] = run
        run.begin(LifeCycle(), self._machine, submission, lambda: self._has_started(application.id))
        return run

    def _new_run(self, given: Mapping[str, Any], application: Application) -> JobRun:
        name = "00" + secrets.token_hex(7)
        shown: dict[str, Any] = {
            **{key: application.shown[key] for key in ("releaseLabel", "type")},
            **{key: given[key] for key in ("applicationId", "name", "jobDriver") if key in given},
            "jobRunId": name,
            "arn": f"{application.shown['arn']}/jobruns/{name}",
            "createdBy": f"arn:aws:iam::{ACCOUNT}:user/orchard",
            "createdAt": now(),
            "updatedAt": now(),
            "executionRole": given["executionRoleArn"],
            "state": "SUBMITTED",
            "stateDetails": DETAILS["SUBMITTED"],
            "configurationOverrides": given.get("configurationOverrides") or {},
            "tags": given.get("tags") or {},
            "executionTimeoutMinutes": given.get("executionTimeoutMinutes", 720),
            "mode": "BATCH",
        }
        kept = {"shown": shown, "token": given["clientToken"], "request": _digest(given)}
        return JobRun(folder=self._folder / "jobs" / name, states=["SUBMITTED"], **kept)

    def dashboard(self, run: JobRun) -> str:
        """Return the URL of a page about a job run."""
        return f"{self._machine.s3['AWS_ENDPOINT_URL']}/?{RUN_QUERY}={run.id}"


def _of_token(records: Iterable[Known], given: Mapping[str, Any]) -> Known | None:
    for record in records:
        if record.token == given["clientToken"]:
            if record.request != _digest(given):
                raise ApiError("ConflictException", f"clientToken {record.token} was used with other parameters")
            return record
    return None


def _digest(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
