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
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.core.exceptions import ServiceException

from orchard_sandbox.faults import Application as Wsgi
from orchard_sandbox.faults import Faults
from orchard_sandbox.job_runs import JobRun, Pace, Record, first_details, now
from orchard_sandbox.landing import ACCOUNT
from orchard_sandbox.spark_submission import Submission, UnknownRequestError, check_worker, read_submission
from orchard_sandbox.submitted_job import Machine

JOB_QUERY = "orchard-job-run"
_NEXT = {"STARTING": "STARTED", "STOPPING": "STOPPED"}
_APPLICATION_MEMBERS = {
    "name", "releaseLabel", "type", "clientToken", "initialCapacity", "maximumCapacity", "tags", "autoStartConfiguration",
    "autoStopConfiguration", "networkConfiguration", "architecture", "imageConfiguration", "monitoringConfiguration",
}  # fmt: skip
_JOB_MEMBERS = {
    "applicationId", "clientToken", "executionRoleArn", "jobDriver", "configurationOverrides", "tags", "executionTimeoutMinutes",
    "name", "mode", "retryPolicy",
}  # fmt: skip


class ServerlessError(ServiceException):
    """An error of the API: its code, and a message."""


def invalid(message: str) -> ServerlessError:
    """Return the API's ValidationException."""
    return ServerlessError("ValidationException", message)


def _missing(what: str, name: str) -> ServerlessError:
    return ServerlessError("ResourceNotFoundException", f"{what} {name} does not exist")


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
        _refuse_unknown(given, _APPLICATION_MEMBERS)
        if given["type"].upper() != "SPARK":
            raise invalid(f"type {given['type']} is not known here: only SPARK")
        if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d(-latest|-\d{8})?", given["releaseLabel"]):
            raise invalid(f"Type '{given['type']}' is not supported for release label '{given['releaseLabel']}'")
        _check_monitoring(given.get("monitoringConfiguration"))
        for name, capacity in (given.get("initialCapacity") or {}).items():
            _check_capacity(name, capacity)
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
                raise _missing("Application", name)
            self._advance(record)
            return record

    def applications(self, region: str) -> list[Record]:
        """Return all applications of the region."""
        names = [name for name, record in self._applications.items() if record.shown["arn"].split(":")[3] == region]
        return [self.application(region, name) for name in names]

    def change_application(self, region: str, name: str, given: Mapping[str, Any]) -> Record:
        """Change an application that does not run."""
        _refuse_unknown(given, _APPLICATION_MEMBERS | {"applicationId"})
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
        _refuse_unknown(given, _JOB_MEMBERS)
        with self._lock:
            application = self.application(region, given["applicationId"])
            known = self._find_token((run.record for run in self._runs.values()), region, given)
            if known is not None:
                return self._runs[known.shown["jobRunId"]]
            if application.shown["state"] == "TERMINATED":
                raise invalid(f"Application {given['applicationId']} is terminated. Cannot start job run.")
            if not application.shown["autoStartConfiguration"].get("enabled"):
                _require_state(application, ("STARTED",))
            submission = _read_job(given, application)
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
            raise _missing("JobRun", name)
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
            raise _missing("Resource", arn)
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

    def wrap(self, application: Wsgi) -> Wsgi:
        """Return the WSGI application with the dashboard's pages: the run, and the driver's streams below /logs/SPARK_DRIVER/."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            asked = parse_qs(environ.get("QUERY_STRING", "")).get(JOB_QUERY)
            if not asked:
                return application(environ, start_response)
            run = self._runs.get(asked[0])
            start_response("200 OK" if run else "404 Not Found", [("Content-Type", "text/html; charset=utf-8")])
            return [_page(run, environ["PATH_INFO"]).encode() if run else b"no such job run"]

        return answer

    def _runs_of(self, application: str) -> list[JobRun]:
        with self._lock:
            return [run for run in self._runs.values() if run.record.shown["applicationId"] == application]

    def _find_token(self, records: Iterable[Record], region: str, given: Mapping[str, Any]) -> Record | None:
        for record in records:
            if record.token == given["clientToken"] and record.shown["arn"].split(":")[3] == region:
                if record.request != _digest(given):
                    raise ServerlessError("ConflictException", f"clientToken {record.token} was used with other parameters")
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


def _read_job(given: Mapping[str, Any], application: Record) -> Submission:
    """Check a request for a job run and return what it submits."""
    if given["executionRoleArn"].split(":")[4] != ACCOUNT:
        raise ServerlessError("AccessDeniedException", "Cross-account pass role is not allowed.")
    minutes = given.get("executionTimeoutMinutes")
    if minutes and minutes < 5:
        raise invalid("RunTimeout must be at least 5 minutes.")
    if given.get("mode") not in (None, "BATCH"):
        raise invalid(f"mode {given['mode']} is not known here: only BATCH")
    policy = given.get("retryPolicy") or {}
    if policy.get("maxAttempts", 1) > 10 or "maxFailedAttemptsPerHour" in policy:
        raise invalid("retryPolicy of a batch job takes maxAttempts from 1 to 10 only")
    driver = given.get("jobDriver") or {}
    if list(driver) != ["sparkSubmit"]:
        raise invalid(f"jobDriver {', '.join(driver) or 'null'} is not known here: only sparkSubmit")
    overrides = given.get("configurationOverrides") or {}
    _refuse_unknown(overrides, {"applicationConfiguration", "monitoringConfiguration"}, "configurationOverrides.")
    _check_monitoring(overrides.get("monitoringConfiguration"))
    defaults: dict[str, str] = {}
    for configuration in overrides.get("applicationConfiguration") or []:
        if configuration["classification"] != "spark-defaults" or configuration.get("configurations"):
            raise invalid(f"classification {configuration['classification']} is not known here: only spark-defaults, flat")
        defaults |= configuration.get("properties") or {}
    try:
        return read_submission(driver["sparkSubmit"], defaults)
    except UnknownRequestError as error:
        raise invalid(str(error)) from error


def _check_monitoring(given: Mapping[str, Any] | None) -> None:
    given = given or {}
    _refuse_unknown(given, {"s3MonitoringConfiguration", "managedPersistenceMonitoringConfiguration"}, "monitoringConfiguration.")
    uri = (given.get("s3MonitoringConfiguration") or {}).get("logUri")
    if uri is not None and not re.fullmatch(r"s3://[^/]+(/.*)?", uri):
        raise invalid(f"logUri {uri} is no S3 URI")


def _check_capacity(name: str, capacity: Mapping[str, Any]) -> None:
    worker = capacity.get("workerConfiguration")
    if name not in ("Driver", "Executor"):
        raise invalid(f"initialCapacity {name} is not known here: Spark has Driver and Executor")
    if worker:
        cores, memory = (int(re.match(r"\d+", worker[key])[0]) for key in ("cpu", "memory"))  # type: ignore[index]
        try:
            check_worker(cores, memory, f"initialCapacity {name}")
        except UnknownRequestError as error:
            raise invalid(str(error)) from error


def _refuse_unknown(given: Mapping[str, Any], known: set[str], where: str = "") -> None:
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise invalid(f"{where}{unknown[0]} is not known here: this stand-in does nothing with it, so it refuses it")


def _require_state(record: Record, states: tuple[str, ...]) -> None:
    if record.shown["state"] not in states:
        raise invalid(
            f"Application {record.shown['applicationId']} must be in one of the following statuses [{', '.join(states)}]. "
            f"Current status: {record.shown['state']}"
        )


def _digest(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()


def _page(run: JobRun, path: str) -> str:
    shown = run.shown
    streams = [name for name in ("stdout", "stderr") if path == f"/logs/SPARK_DRIVER/{name}.gz"] or ["stderr", "stdout"]
    head = f"<h1>Job run {shown['jobRunId']}: {shown['state']}</h1><p>{escape(shown['stateDetails'])}</p>"
    return head + "".join(f"<h2>{name}</h2><pre>{escape(run.log_text(name))}</pre>" for name in streams)
