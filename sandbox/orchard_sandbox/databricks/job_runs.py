"""A Databricks run: translates the life cycle into the states and messages that `runs/get` shows.

A run is on disk after each change: it and its idempotency token are known after the stand-in's restart. It knows no HTTP.
"""

import time
from dataclasses import dataclass
from typing import Any

from orchard_sandbox.databricks.task_compute import TaskJob, Workspace
from orchard_sandbox.job_execution.life_cycle import Ending, Run
from orchard_sandbox.job_execution.run_pages import RUN_QUERY

_OUTPUT = 5 * 1024 * 1024


@dataclass(kw_only=True)
class DatabricksRun(Run):
    """One run: the request with its token, and where its one task stands.

    Attributes:
        run_id: its number; the next one is its task's.
        request: what was asked for.
        start_time: milliseconds since the epoch.
        end_time: milliseconds since the epoch; 0 while it is not over.
        result_state: how it ended.
        details: the message that goes with its state.
        error: why its task failed.
        error_trace: the end of its task's stderr.
    """

    STATES = {"running": "RUNNING", "ending": "TERMINATING"}
    ENDS = {"succeeded": "SUCCESS", "failed": "FAILED", "cancelled": "CANCELED", "timed_out": "TIMEDOUT"}
    run_id: int
    request: dict[str, Any]
    start_time: int
    end_time: int = 0
    result_state: str | None = None
    details: str = ""
    error: str = ""
    error_trace: str = ""

    def headline(self) -> tuple[str, str]:
        """Return its result, and the message that goes with it."""
        return self.result_state or self.state, self.details

    @property
    def task_run_id(self) -> int:
        """The task's own run id."""
        return self.run_id + 1

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self.state in ("TERMINATED", "INTERNAL_ERROR")

    def show(self, address: str) -> dict[str, Any]:
        """Return the run as `runs/get` shows it, on a workspace at an address."""
        with self.lock:
            result = {"result_state": self.result_state} if self.result_state else {}
            both = {
                "state": {"life_cycle_state": self.state, "state_message": self.details, **result},
                "start_time": self.start_time,
                "run_page_url": f"{address}/?{RUN_QUERY}={self.run_id}",
                **({"end_time": self.end_time} if self.is_over else {}),
            }
            (task,) = self.request["tasks"]
            return {
                **both,
                "run_id": self.run_id,
                "job_id": self.run_id + 2,
                "run_name": self.request.get("run_name", "Untitled"),
                "tasks": [{**task, **both, "run_id": self.task_run_id, "attempt_number": 0}],
            }

    def output(self) -> dict[str, str]:
        """Return the task's output as `runs/get-output` shows it."""
        text = "\n".join(self.log_text(name) for name in ("stdout", "stderr"))
        found = {"logs": text[-_OUTPUT:], "error": self.error, "error_trace": self.error_trace}
        return {name: value for name, value in found.items() if value}

    def lose(self, reason: str) -> None:
        """End a run that nothing executes any more."""
        self._end("INTERNAL_ERROR", "FAILED", reason)

    def start(self, workspace: Workspace) -> None:
        """Run it in a thread until it ends."""
        since = time.monotonic()

        def work() -> None:
            # The folder marks the processes, for run ids recur: each workspace on this machine counts its own.
            job = TaskJob(workspace, self.request, self.log_folder, str(self.folder))
            ending = self.execute(job, int(self.request.get("timeout_seconds") or 0), since)
            self._end("TERMINATED", self.ENDS[ending.kind], self._words(ending))

        self.begin(work)

    def _words(self, ending: Ending) -> str:
        """Note why the task failed, and return the message that Databricks gives for the ending."""
        if ending.kind == "cancelled":
            return "Run cancelled."
        if ending.kind == "timed_out":
            return f"Run timed out after {self.request['timeout_seconds']} seconds."
        if ending.kind == "succeeded":
            return ""
        trace = [line for line in self.log_text("stderr").splitlines() if line.strip()]
        self.error, self.error_trace = ending.reason, "\n".join(trace[-60:])
        return "Workload failed, see run output for details" if ending.status else f"Workload failed: {ending.reason}"

    def _end(self, state: str, result: str, message: str) -> None:
        with self.lock:
            self.result_state, self.details, self.end_time = result, message, now()
            self.change(state)


def now() -> int:
    """Return the time as the API gives it, in milliseconds."""
    return int(time.time() * 1000)
