"""EMR Serverless for the stand-in: its applications and job runs, which truly run what is submitted.

They and their client tokens outlive the process. What is not known here is refused with the API's error.
Requests are the concern of `emr_serverless_api`.
"""

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchard_sandbox.aws_responses import ApiError
from orchard_sandbox.emr_serverless_requests import (
    APPLICATION_MEMBERS,
    check_application,
    invalid,
    missing,
    read_job,
    refuse_unknown,
)
from orchard_sandbox.faults import Faults
from orchard_sandbox.job_pages import JOB_QUERY
from orchard_sandbox.job_runs import JobRun, Pace, Record, first_details, now
from orchard_sandbox.landing import ACCOUNT
from orchard_sandbox.submitted_job import Machine

_NEXT = {"STARTING": "STARTED", "STOPPING": "STOPPED"}


class EmrServerless:
    """All applications and job runs.

    Args:
        folder: where they and the jobs' logs are kept.
        machine: what runs jobs.
        pace: the clock.
        faults: what the jobs suffer.
    """

    def __init__(self, folder: Path, machine: Machine, pace: Pace, faults: Faults) -> None:
        self._folder = folder
        self._machine = machine
        self._pace = pace
        self._faults = faults
        self._lock = threading.RLock()
        self._applications = {path.stem: Record.read(path) for path in folder.glob("applications/*.json")}
        self._runs = {path.parent.name: JobRun(Record.read(path), path.parent, pace) for path in folder.glob("jobs/*/run.json")}
        self._used: dict[str, float] = {}
        self._settle_after_restart()

    def _settle_after_restart(self) -> None:
        for application in self._applications.values():
            application.shown["state"] = _NEXT.get(application.shown["state"], application.shown["state"])
        for run in self._runs.values():
            if not run.is_over:
                run.fail("The stand-in ended while the job run was under way, and its processes with it.")

    def create_application(self, region: str, given: Mapping[str, Any]) -> Record:
        """Make an application, or return that of the client token."""
        check_application(given)
        with self._lock:
            known = self._find_token(self._applications.values(), region, given)
            if known is not None:
                return known
            name = "00" + secrets.token_hex(7)
            shown = {
                "autoStartConfiguration": {"enabled": True},
                "autoStopConfiguration": {"enabled": True, "idleTimeoutMinutes": 15},
                "architecture": "X86_64",
                **{key: value for key, value in given.items() if key != "clientToken" and value is not None},
                "applicationId": name,
                "type": "Spark",
                "arn": f"arn:aws:emr-serverless:{region}:{ACCOUNT}:/applications/{name}",
                "state": "CREATED",
                "createdAt": now(),
                "updatedAt": now(),
            }
            record = Record(shown, given["clientToken"], _digest(given))
            self._applications[name] = record
            self._save(record)
            return record

    def application(self, region: str, name: str) -> Record:
        """Return an application as it is by now."""
        with self._lock:
            record = self._applications.get(name)
            if record is None or record.shown["arn"].split(":")[3] != region:
                raise missing("Application", name)
            self._advance(record)
            return record

    def applications(self, region: str) -> list[Record]:
        """Return all applications of the region."""
        names = [name for name, record in self._applications.items() if record.shown["arn"].split(":")[3] == region]
        return [self.application(region, name) for name in names]

    def change_application(self, region: str, name: str, given: Mapping[str, Any]) -> Record:
        """Change an application that does not run."""
        refuse_unknown(given, APPLICATION_MEMBERS | {"applicationId"})
        with self._lock:
            record = self.application(region, name)
            _require_state(record, ("CREATED", "STOPPED"))
            record.shown.update({key: value for key, value in given.items() if key != "clientToken" and value is not None})
            self._move(record, record.shown["state"])
            return record

    def start_application(self, region: str, name: str) -> None:
        """Start an application; one that has started stays as it is."""
        with self._lock:
            record = self.application(region, name)
            _require_state(record, ("CREATED", "STOPPED", "STARTING", "STARTED"))
            if record.shown["state"] in ("CREATED", "STOPPED"):
                self._move(record, "STARTING")

    def stop_application(self, region: str, name: str) -> None:
        """Stop an application without jobs under way."""
        with self._lock:
            record = self.application(region, name)
            if any(not run.is_over for run in self._runs_of(name)):
                raise invalid(f"Application {name} cannot be stopped: it has job runs that have not ended")
            _require_state(record, ("CREATED", "STOPPED", "STOPPING", "STARTED"))
            if record.shown["state"] == "STARTED":
                self._move(record, "STOPPING")

    def delete_application(self, region: str, name: str) -> None:
        """Terminate an application that does not run."""
        with self._lock:
            record = self.application(region, name)
            _require_state(record, ("CREATED", "STOPPED"))
            self._move(record, "TERMINATED")

    def start_job_run(self, region: str, given: Mapping[str, Any]) -> JobRun:
        """Start a job run, or return that of the client token, however it stands."""
        submission = read_job(given)
        with self._lock:
            application = self.application(region, given["applicationId"])
            known = self._find_token((run.record for run in self._runs.values()), region, given)
            if known is not None:
                return self._runs[known.shown["jobRunId"]]
            if application.shown["state"] == "TERMINATED":
                raise invalid(f"Application {given['applicationId']} is terminated. Cannot start job run.")
            if not application.shown["autoStartConfiguration"].get("enabled"):
                _require_state(application, ("STARTED",))
            run = self._new_run(region, given, application)
            self._runs[run.record.shown["jobRunId"]] = run
            run.save()
        run.start(submission, self._machine, self._faults, lambda: self._has_started(region, given["applicationId"]))
        return run

    def _new_run(self, region: str, given: Mapping[str, Any], application: Record) -> JobRun:
        name = "00" + secrets.token_hex(7)
        of_application: dict[str, Any] = {
            key: application.shown[key]
            for key in ("releaseLabel", "type", "networkConfiguration", "imageConfiguration")
            if key in application.shown
        }
        overrides = dict(given.get("configurationOverrides") or {})
        if "monitoringConfiguration" in application.shown:
            overrides.setdefault("monitoringConfiguration", application.shown["monitoringConfiguration"])
        shown: dict[str, Any] = {
            **of_application,
            "applicationId": given["applicationId"],
            "jobRunId": name,
            "arn": f"{application.shown['arn']}/jobruns/{name}",
            "name": given.get("name"),
            "createdBy": f"arn:aws:iam::{ACCOUNT}:user/orchard",
            "createdAt": now(),
            "updatedAt": now(),
            "executionRole": given["executionRoleArn"],
            "state": "SUBMITTED",
            "stateDetails": first_details(),
            "configurationOverrides": overrides,
            "jobDriver": given["jobDriver"],
            "tags": given.get("tags") or {},
            "executionTimeoutMinutes": 720 if given.get("executionTimeoutMinutes") is None else given["executionTimeoutMinutes"],
            "mode": "BATCH",
            "retryPolicy": {"maxAttempts": (given.get("retryPolicy") or {}).get("maxAttempts", 1)},
            "attempt": 1,
        }
        record = Record({key: value for key, value in shown.items() if value is not None}, given["clientToken"], _digest(given))
        return JobRun(record, self._folder / "jobs" / name, self._pace)

    def run(self, region: str, application: str, name: str) -> JobRun:
        """Return a job run."""
        self.application(region, application)
        run = self._runs.get(name)
        if run is None or run.record.shown["applicationId"] != application:
            raise missing("JobRun", name)
        return run

    def runs(self, region: str, application: str, given: Mapping[str, Any]) -> list[JobRun]:
        """Return an application's job runs that a filter leaves, the newest first."""
        self.application(region, application)
        after, before, states = given.get("createdAtAfter"), given.get("createdAtBefore"), given.get("states")
        found = [
            (shown["createdAt"].timestamp(), run)
            for run in self._runs_of(application)
            for shown in [run.shown]
            if (not states or shown["state"] in states) and given.get("mode") in (None, "BATCH")
        ]
        left = [
            (created, run)
            for created, run in found
            if (after is None or created > after.timestamp()) and (before is None or created < before.timestamp())
        ]
        return [run for _, run in sorted(left, key=lambda pair: -pair[0])]

    def tags(self, region: str, arn: str) -> dict[str, str]:
        """Return the tags of an application or a job run, to read or to change."""
        match = re.fullmatch(rf"arn:aws:emr-serverless:{region}:{ACCOUNT}:/applications/(\w+)(?:/jobruns/(\w+))?", arn)
        if match is None:
            raise missing("Resource", arn)
        owner = self.run(region, match[1], match[2]).record if match[2] else self.application(region, match[1])
        tags: dict[str, str] = owner.shown.setdefault("tags", {})
        return tags

    def save_tags(self, region: str, arn: str) -> None:
        """Write what was changed of tags to disk."""
        names = arn.split("/")
        if "jobruns" in names:
            self.run(region, names[2], names[-1]).save()
        else:
            self._save(self.application(region, names[2]))

    def dashboard(self, region: str, application: str, name: str) -> str:
        """Return the URL of a page about a job run."""
        run = self.run(region, application, name)
        return f"{self._machine.address}/?{JOB_QUERY}={run.record.shown['jobRunId']}"

    def find_run(self, name: str) -> JobRun | None:
        """Return a job run of any application."""
        return self._runs.get(name)

    def _runs_of(self, application: str) -> list[JobRun]:
        with self._lock:
            return [run for run in self._runs.values() if run.record.shown["applicationId"] == application]

    def _find_token(self, records: Iterable[Record], region: str, given: Mapping[str, Any]) -> Record | None:
        for record in records:
            if record.token == given["clientToken"] and record.shown["arn"].split(":")[3] == region:
                if record.request != _digest(given):
                    raise ApiError("ConflictException", f"clientToken {record.token} was used with other parameters")
                return record
        return None

    def _has_started(self, region: str, name: str) -> bool:
        with self._lock:
            record = self.application(region, name)
            if record.shown["state"] in ("CREATED", "STOPPED"):
                self._move(record, "STARTING")
            return bool(record.shown["state"] == "STARTED")

    def _advance(self, record: Record) -> None:
        """Lead an application to where time has brought it."""
        shown, idle = record.shown, record.shown["autoStopConfiguration"]
        since = time.monotonic() - self._used.setdefault(shown["applicationId"], time.monotonic())
        if shown["state"] in _NEXT and since > self._pace.state_seconds:
            self._move(record, _NEXT[shown["state"]])
        if shown["state"] != "STARTED":
            return
        if any(not run.is_over for run in self._runs_of(shown["applicationId"])):
            self._used[shown["applicationId"]] = time.monotonic()
        elif idle.get("enabled") and since > idle.get("idleTimeoutMinutes", 15) * self._pace.minute_seconds:
            self._move(record, "STOPPED")

    def _move(self, record: Record, state: str) -> None:
        record.shown.update(state=state, updatedAt=now())
        self._used[record.shown["applicationId"]] = time.monotonic()
        self._save(record)

    def _save(self, record: Record) -> None:
        record.write(self._folder / "applications" / f"{record.shown['applicationId']}.json")


def _require_state(record: Record, states: tuple[str, ...]) -> None:
    if record.shown["state"] not in states:
        raise invalid(
            f"Application {record.shown['applicationId']} must be in one of the following statuses [{', '.join(states)}]. "
            f"Current status: {record.shown['state']}"
        )


def _digest(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
