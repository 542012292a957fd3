"""EMR Serverless for the stand-in: applications, and job runs that execute what is submitted.

They and their client tokens outlive the process. Requests are the concern of `serverless_api`.
"""

import hashlib
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard_sandbox.emr.api import ApiError
from orchard_sandbox.emr.serverless_runs import JobRun
from orchard_sandbox.emr.submissions import check_application, read_job
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.records import Record, now
from orchard_sandbox.s3.landing import ACCOUNT, REGION


@dataclass(kw_only=True)
class Application(Record):
    """An application.

    Attributes:
        shown: as the API shows it, less its state.
    """

    shown: dict[str, Any]

    def show(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {**self.shown, "state": self.state}


class EmrServerless:
    """All applications and job runs, which are kept in a folder."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder, self.machine = folder, machine
        self.lock = threading.RLock()
        self.applications = {one.id: one for one in Application.read_all(folder / "applications")}
        self.runs = JobRun.restored(folder / "jobs")

    def create_application(self, given: Mapping[str, Any]) -> Application:
        """Create an application."""
        check_application(given)
        name = "00" + secrets.token_hex(7)
        shown = {
            **{key: given[key] for key in ("name", "releaseLabel", "tags") if key in given},
            "applicationId": name,
            "type": "Spark",
            "arn": f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{name}",
            "createdAt": now(),
            "updatedAt": now(),
        }
        made = Application(folder=self._folder / "applications" / name, states=["CREATED"], shown=shown)
        made.save()
        self.applications[name] = made
        return made

    def application(self, name: str) -> Application:
        """Return an application in its present state."""
        if name not in self.applications:
            raise ApiError("ResourceNotFoundException", f"Application {name} does not exist")
        return self.applications[name]

    def run(self, application: str, name: str) -> JobRun:
        """Return a job run of an application."""
        run = self.runs.get(name)
        if run is None or run.shown["applicationId"] != self.application(application).id:
            raise ApiError("ResourceNotFoundException", f"JobRun {name} does not exist")
        return run

    def start_job_run(self, given: Mapping[str, Any]) -> JobRun:
        """Start a job run, or return the one that the client token started before, whatever its state."""
        submission = read_job(given)
        with self.lock:
            application = self.application(given["applicationId"])
            for known in self.runs.values():
                if known.token == given["clientToken"]:
                    if known.request != _digest(given):
                        raise ApiError("ConflictException", f"clientToken {known.token} was used with other parameters")
                    return known
            application.change("STARTED")  # an application starts with its first job
            run = self._new_run(given, application)
            run.change("SUBMITTED")
            self.runs[run.id] = run
        run.start(self.machine, submission)
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
            "configurationOverrides": given.get("configurationOverrides") or {},
            "tags": given.get("tags") or {},
            "executionTimeoutMinutes": given.get("executionTimeoutMinutes", 720),
            "mode": "BATCH",
        }
        kept = {"shown": shown, "token": given["clientToken"], "request": _digest(given)}
        return JobRun(folder=self._folder / "jobs" / name, states=["SUBMITTED"], **kept)


def _digest(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
