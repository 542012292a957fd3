"""A job run's life on EMR Serverless: its states, attempts, time-out and cancellation, as `GetJobRun` shows them.

A run is on disk after each change: it and its client token are known after the stand-in's restart. It knows no request.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchard_sandbox.faults import Fault, Faults
from orchard_sandbox.spark_submission import Submission, last_error
from orchard_sandbox.submitted_job import Machine, MissingFileError, SubmittedJob

log = logging.getLogger(__name__)
TERMINAL = ("SUCCESS", "FAILED", "CANCELLED")
CANCEL_SECONDS = 5.0
_DETAILS_LENGTH = 256
_POLL_SECONDS = 0.05
_OUT_OF_MEMORY = "java.lang.OutOfMemoryError: Java heap space"
# AWS requires some text in each state.
_DETAILS = {
    "SUBMITTED": "The job run was submitted.",
    "PENDING": "The job run waits for the application.",
    "SCHEDULED": "Resources are being allocated.",
    "RUNNING": "The driver runs.",
    "SUCCESS": "The job run ended.",
    "CANCELLING": "The job run is being cancelled.",
}


@dataclass(frozen=True)
class Pace:
    """How fast the stand-in's clock goes.

    Attributes:
        state_seconds: how long a state that leads to another one lasts at least.
        minute_seconds: how long a minute of executionTimeoutMinutes or idleTimeoutMinutes lasts.
    """

    state_seconds: float = 0.2
    minute_seconds: float = 60.0


@dataclass
class Record:
    """What is kept of a run or an application.

    Attributes:
        shown: as the API shows it.
        token: the client token that it was asked for with.
        request: digest of the request.
        attempts: of a run, each as `ListJobRunAttempts` shows it.
    """

    shown: dict[str, Any]
    token: str
    request: str
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it; the file is there whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(vars(self), default=lambda moment: {"$time": moment.isoformat()}))
        os.replace(fresh, path)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Return what was written."""
        return cls(**json.loads(path.read_text(), object_hook=_read_time))


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    state: str
    details: str


class JobRun:
    """One run; `start` gives it a thread of its own that leads it to its end.

    Args:
        record: what the API shows.
        folder: a folder of its own.
        pace: its clock.
    """

    def __init__(self, record: Record, folder: Path, pace: Pace) -> None:
        self.record = record
        self._folder = folder
        self._pace = pace
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._grace = CANCEL_SECONDS
        self._job: SubmittedJob | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """A copy as the API shows it."""
        with self._lock:
            return dict(self.record.shown)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """A copy of all attempts as the API shows them."""
        with self._lock:
            return [dict(attempt) for attempt in self.record.attempts]

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self.shown["state"] in TERMINAL

    def save(self) -> None:
        """Write the run to disk."""
        self.record.write(self._folder / "run.json")

    def fail(self, details: str) -> None:
        """End a run that no thread leads."""
        self._change("FAILED", details)

    def log_text(self, name: str) -> str:
        """Return what the driver wrote to `stdout` or `stderr` in the last attempt."""
        path = self._folder / str(self.shown.get("attempt", 1)) / name
        return path.read_text(errors="replace") if path.exists() else ""

    def cancel(self, seconds: float = CANCEL_SECONDS) -> None:
        """Have the run end as cancelled; its processes get SIGTERM, and SIGKILL after the seconds."""
        self._grace = seconds
        self._cancelled.set()

    def start(self, submission: Submission, machine: Machine, faults: Faults, application_started: Callable[[], bool]) -> None:
        """Run it in a thread, up to its end.

        Args:
            submission: what to run.
            machine: what runs it.
            faults: what it suffers.
            application_started: starts the application if need be and says whether it has started.
        """

        def lead() -> None:
            try:
                ending = self._lead(submission, machine, faults, application_started)
            except Exception as error:  # a run must not stay RUNNING for a defect of ours
                log.exception("job run %s", self.record.shown["jobRunId"])
                ending = Ending("FAILED", f"the stand-in failed: {error!r}")
            self._change(ending.state, ending.details)

        threading.Thread(target=lead, name=self.record.shown["jobRunId"], daemon=True).start()

    def _lead(self, submission: Submission, machine: Machine, faults: Faults, application_started: Callable[[], bool]) -> Ending:
        self._cancelled.wait(self._pace.state_seconds)
        attempts = self.record.shown["retryPolicy"]["maxAttempts"]
        for number in range(1, attempts + 1):
            self._begin_attempt(number)
            while not application_started() and not self._cancelled.is_set():
                self._cancelled.wait(_POLL_SECONDS)
            self._cancelled.wait(self._pace.state_seconds)
            ending = self._attempt(number, submission, machine, faults)
            with self._lock:
                self.record.attempts[-1].update(
                    state=ending.state, stateDetails=ending.details[:_DETAILS_LENGTH], updatedAt=now()
                )
            if ending.state != "FAILED":
                break
        return ending

    def _begin_attempt(self, number: int) -> None:
        moment = now()
        with self._lock:
            shown = self.record.shown
            shown.update(attempt=number, attemptCreatedAt=moment)
            attempt = {**shown, "id": shown["jobRunId"], "jobCreatedAt": shown["createdAt"], "createdAt": moment}
            self.record.attempts.append(attempt)
        self._change("PENDING")

    def _attempt(self, number: int, submission: Submission, machine: Machine, faults: Faults) -> Ending:
        if self._cancelled.is_set():
            return self._end_cancelled("before it ran")
        self._change("SCHEDULED")
        self._cancelled.wait(self._pace.state_seconds)
        if fault := faults.take(("no_execution",)):
            self._cancelled.wait(fault.seconds)
            return Ending("FAILED", "Job failed: execution is switched off in this stand-in, nothing was run.")
        marker = f"{self.record.shown['jobRunId']}-{number}"
        job = SubmittedJob(machine, self._folder / str(number), submission, self._logs_uri(), marker)
        try:
            return self._run(job, faults)
        except MissingFileError as error:
            job.write_error(str(error))
            return _failed(1, str(error))
        finally:
            job.put_logs(is_last=True)
            job.remove_files()

    def _run(self, job: SubmittedJob, faults: Faults) -> Ending:
        command = job.fetch()
        if self._cancelled.is_set():
            return self._end_cancelled("before it ran")
        fault = faults.take(("kill_job", "out_of_memory"))
        job.start(command)
        self._change("RUNNING")
        reason = self._watch(job, fault)
        status = self._wait_for_end(job)
        if reason:
            return self._end_cancelled(reason)
        if status == 0:
            return Ending("SUCCESS", _DETAILS["SUCCESS"])
        if fault and fault.kind == "out_of_memory":
            job.write_error(_OUT_OF_MEMORY)
            return _failed(status, _OUT_OF_MEMORY)
        return _failed(status, last_error(job.read_lines(), status))

    def _watch(self, job: SubmittedJob, fault: Fault | None) -> str:
        """Wait for the job's end, or bring it about; return why it was cancelled, or nothing."""
        begin = time.monotonic()
        minutes = self.record.shown["executionTimeoutMinutes"]
        while job.status() is None:
            ran = time.monotonic() - begin
            job.put_logs()
            if fault and ran >= fault.seconds:
                job.end(0)
                return ""
            if self._cancelled.is_set():
                return self._end_job(job, "on request")
            if minutes and ran >= minutes * self._pace.minute_seconds:
                return self._end_job(job, f"because it ran for longer than executionTimeoutMinutes={minutes}")
            self._cancelled.wait(_POLL_SECONDS)
        return ""

    def _end_job(self, job: SubmittedJob, reason: str) -> str:
        self._change("CANCELLING")
        job.end(self._grace)
        return reason

    @staticmethod
    def _wait_for_end(job: SubmittedJob) -> int:
        status = job.status()
        while status is None:
            time.sleep(_POLL_SECONDS)
            status = job.status()
        return status

    def _end_cancelled(self, reason: str) -> Ending:
        if self.record.shown["state"] != "CANCELLING":
            self._change("CANCELLING")
            time.sleep(self._pace.state_seconds)
        return Ending("CANCELLED", f"The job run was cancelled {reason}.")

    def _logs_uri(self) -> str | None:
        monitoring = (self.record.shown.get("configurationOverrides") or {}).get("monitoringConfiguration") or {}
        uri = (monitoring.get("s3MonitoringConfiguration") or {}).get("logUri")
        shown = self.record.shown
        return f"{uri.rstrip('/')}/applications/{shown['applicationId']}/jobs/{shown['jobRunId']}/SPARK_DRIVER" if uri else None

    def _change(self, state: str, details: str = "") -> None:
        moment = now()
        with self._lock:
            shown = self.record.shown
            told = {"state": state, "stateDetails": (details or _DETAILS[state])[:_DETAILS_LENGTH], "updatedAt": moment}
            shown.update(told, attemptUpdatedAt=moment)
            if state == "RUNNING":
                shown.setdefault("startedAt", moment)
            if state in TERMINAL:
                shown["endedAt"] = moment
                shown["totalExecutionDurationSeconds"] = round((moment - shown.get("startedAt", moment)).total_seconds())
            if self.record.attempts:
                self.record.attempts[-1].update(told)
            self.save()


def _failed(status: int, reason: str) -> Ending:
    """Return the end of a failed job, in the words of AWS."""
    where = "Job failed, please check complete logs in configured logging destination."
    return Ending("FAILED", f"{where} ExitCode: {status}. Last few exceptions: {reason}")


def first_details() -> str:
    """Return what is said of a run that was just submitted."""
    return _DETAILS["SUBMITTED"]


def _read_time(given: dict[str, Any]) -> Any:
    return datetime.fromisoformat(given["$time"]) if "$time" in given else given


def now() -> datetime:
    """Return the time as the API gives it, in whole milliseconds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
