"""A submitted run's life on Databricks: states, time-out and cancellation, as `runs/get` shows them, and its one task's process.

A run is on disk after each change: it and its idempotency token are known after the stand-in's restart. It knows no HTTP.
"""

import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchard_sandbox.databricks_compute import Workspace, prepare
from orchard_sandbox.databricks_files import MissingError
from orchard_sandbox.spark_submission import last_error
from orchard_sandbox.submitted_job import GuardedJob

log = logging.getLogger(__name__)
CANCEL_SECONDS = 5.0
_POLL_SECONDS = 0.05
_OUTPUT = 5 * 1024 * 1024
_ENDS = {
    "SUCCESS": ("SUCCESS", "SUCCESS"),
    "FAILED": ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
    "TIMEDOUT": ("CANCELED", "CLIENT_ERROR"),
    "CANCELED": ("USER_CANCELED", "SUCCESS"),
    "MAXIMUM_CONCURRENT_RUNS_REACHED": ("MAX_CONCURRENT_RUNS_EXCEEDED", "CLIENT_ERROR"),
}


@dataclass
class Record:
    """What is kept of a run: the request with its token, and where its one task stands."""

    run_id: int
    request: dict[str, Any]
    start_time: int
    life_cycle_state: str = "PENDING"
    result_state: str | None = None
    message: str = ""
    end_time: int = 0
    error: str = ""
    error_trace: str = ""
    # Of the job that the run was started from; None for a submitted run.
    job_id: int | None = None

    def write(self, folder: Path) -> None:
        """Write it; the file is there whole or not at all."""
        fresh = folder / "run.part"
        fresh.write_text(json.dumps(vars(self)))
        os.replace(fresh, folder / "run.json")

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Return what was written."""
        return cls(**json.loads((folder / "run.json").read_text()))


@dataclass
class Run:
    """One run; `start` gives it a thread of its own that leads it to its end."""

    record: Record
    workspace: Workspace
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def folder(self) -> Path:
        """What the run writes."""
        return self.workspace.folder / str(self.record.run_id)

    @property
    def task(self) -> dict[str, Any]:
        """The one task, as it was asked for."""
        (task,) = self.record.request["tasks"]
        found: dict[str, Any] = task
        return found

    @property
    def task_run_id(self) -> int:
        """The task's own run id."""
        return self.record.run_id + 1

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self.record.life_cycle_state in ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")

    @property
    def _type(self) -> str:
        return "SUBMIT_RUN" if self.record.job_id is None else "JOB_RUN"

    def shown(self) -> dict[str, Any]:
        """Return the run as `runs/get` shows it."""
        record, page = self.record, f"{self.workspace.address}/?run={self.record.run_id}"
        with self._lock:
            ended = {"end_time": record.end_time, "run_duration": record.end_time - record.start_time} if self.is_over else {}
            both = {
                "state": self._state(),
                "status": self._status(),
                "start_time": record.start_time,
                "run_page_url": page,
                "setup_duration": 0,
                "execution_duration": ended.get("run_duration", 0),
                "cleanup_duration": 0,
                **({"end_time": record.end_time} if self.is_over else {}),
            }
            task = {**self.task, **both, "run_id": self.task_run_id, "attempt_number": 0, "run_if": "ALL_SUCCESS"}
            return {
                **both,
                **ended,
                "run_id": record.run_id,
                "job_id": record.job_id or record.run_id + 2,
                "number_in_job": record.run_id,
                "creator_user_name": "orchard",
                "run_name": record.request.get("run_name", "Untitled"),
                "run_type": self._type,
                "trigger": "ONE_TIME",
                "tasks": [task],
            }

    def output(self) -> dict[str, Any]:
        """Return the task's output as `runs/get-output` shows it."""
        text = "\n".join(self.log_text(name) for name in ("stdout", "stderr"))
        metadata = {**self.shown()["tasks"][0], "run_type": self._type}
        for name in ("run_if", "attempt_number"):
            metadata.pop(name)
        kept = {name: metadata[name] for name in ("run_id", "state", "status", "start_time", "run_page_url", "run_type")}
        found = {"metadata": kept, "logs": text[-_OUTPUT:], "logs_truncated": len(text) > _OUTPUT}
        told = {"error": self.record.error, "error_trace": self.record.error_trace}
        return found | {name: value for name, value in told.items() if value}

    def log_text(self, name: str) -> str:
        """Return what the task wrote to `stdout` or `stderr`."""
        path = self.folder / "task" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def cancel(self) -> None:
        """Have the run end as cancelled, its processes within seconds."""
        self._cancelled.set()

    def skip(self) -> None:
        """End the run without having started it, for another run of its job is active."""
        self._change("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED", "Skipped: another run of the job is active.")

    def lose(self) -> None:
        """End a run that no thread leads."""
        self._change("INTERNAL_ERROR", "FAILED", "The cluster of this run was lost.")

    def start(self) -> None:
        """Run it in a thread, up to its end."""

        def lead() -> None:
            try:
                result, message = self._lead()
            except Exception as error:  # a run must not stay RUNNING for a defect of ours
                log.exception("run %s", self.record.run_id)
                self._change("INTERNAL_ERROR", "FAILED", f"the stand-in failed: {error!r}")
            else:
                self._change("TERMINATED", result, message)

        threading.Thread(target=lead, name=f"run-{self.record.run_id}", daemon=True).start()

    def _lead(self) -> tuple[str, str]:
        begin = time.monotonic()
        self._cancelled.wait(self.workspace.pace.state_seconds)
        if self._cancelled.is_set():
            return self._end_cancelled()
        fault = self.workspace.faults.take(("no_execution",))
        if fault:
            self._cancelled.wait(fault.seconds)
            return self._fail("Workload failed: execution is switched off in this stand-in, nothing was run.")
        # The folder marks the processes, for run ids recur: each workspace on this machine counts its own.
        folder, marker = self.folder / "task", str(self.folder)
        try:
            compute = prepare(self.workspace, self.record.request, marker, folder)
        except MissingError as error:
            return self._fail(str(error))
        if self._cancelled.is_set():
            return self._end_cancelled()
        job = GuardedJob(folder, marker)
        compute.write_worker(folder / "run")
        fault = self.workspace.faults.take(("kill_job", "out_of_memory"))
        job.run(compute.command, compute.environment)
        self._change("RUNNING")
        try:
            return self._watch(job, begin, fault.seconds if fault else None, fault.kind if fault else "")
        finally:
            job.remove_files()

    def _watch(self, job: GuardedJob, begin: float, fault_after: float | None, fault: str) -> tuple[str, str]:
        seconds = int(self.record.request.get("timeout_seconds") or 0) * self.workspace.pace.minute_seconds / 60
        started, ending = time.monotonic(), ("", "")
        while job.status() is None:
            now = time.monotonic()
            if fault_after is not None and now - started >= fault_after:
                job.end(0)
                fault_after = None
            elif not ending[0] and self._cancelled.is_set():
                ending = self._end(job, "CANCELED", "Run cancelled.")
            elif not ending[0] and seconds and now - begin >= seconds:
                ending = self._end(job, "TIMEDOUT", f"Run timed out after {self.record.request['timeout_seconds']} seconds.")
            time.sleep(_POLL_SECONDS)
        status = job.status()
        if ending[0]:
            return ending
        if status == 0:
            return "SUCCESS", ""
        if fault == "out_of_memory":
            return self._fail("Python kernel is unresponsive: the driver ran out of memory.")
        lines = job.read_lines()
        trace = [line for line in self.log_text("stderr").splitlines() if line.strip()]
        self.record.error_trace = "\n".join(trace[-60:])
        return self._fail(last_error(lines, status or 1), "Workload failed, see run output for details")

    def _end(self, job: GuardedJob, result: str, message: str) -> tuple[str, str]:
        self._change("TERMINATING")
        job.end(CANCEL_SECONDS)
        return result, message

    def _end_cancelled(self) -> tuple[str, str]:
        self._change("TERMINATING")
        time.sleep(self.workspace.pace.state_seconds)
        return "CANCELED", "Run cancelled."

    def _fail(self, error: str, message: str = "") -> tuple[str, str]:
        self.record.error = error
        return "FAILED", message or error

    def _state(self) -> dict[str, Any]:
        record = self.record
        result = {"result_state": record.result_state} if record.result_state else {}
        return {"life_cycle_state": record.life_cycle_state, "state_message": record.message, **result}

    def _status(self) -> dict[str, Any]:
        record = self.record
        if not record.result_state:
            return {"state": record.life_cycle_state}
        code, kind = (
            ("INTERNAL_ERROR", "INTERNAL_ERROR") if record.life_cycle_state == "INTERNAL_ERROR" else _ENDS[record.result_state]
        )
        return {"state": "TERMINATED", "termination_details": {"code": code, "type": kind, "message": record.message}}

    def _change(self, state: str, result: str | None = None, message: str = "") -> None:
        with self._lock:
            record = self.record
            record.life_cycle_state, record.result_state, record.message = state, result, message
            if result:
                record.end_time = now()
            record.write(self.folder)


def now() -> int:
    """Return the time as the API gives it, in milliseconds."""
    return int(time.time() * 1000)
