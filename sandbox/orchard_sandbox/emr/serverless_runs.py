"""An EMR Serverless job run: translates the life cycle into the states and messages that `GetJobRun` shows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchard_jobs.contract.locations import below

from orchard_sandbox.emr.serverless_requests import logs_uri
from orchard_sandbox.emr.spark_submit import SparkSubmitJob
from orchard_sandbox.emr.submissions import Submission
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import Ending, LifeCycle
from orchard_sandbox.job_execution.records import now
from orchard_sandbox.job_execution.run_pages import RunRecord

TERMINAL = ("SUCCESS", "FAILED", "CANCELLED")
_DETAILS_LENGTH = 256
# AWS requires some text in each state.
DETAILS = {
    "SUBMITTED": "The job run was submitted.",
    "PENDING": "The job run waits for the application.",
    "SCHEDULED": "Resources are being allocated.",
    "RUNNING": "The driver runs.",
    "SUCCESS": "The job run ended.",
    "CANCELLING": "The job run is being cancelled.",
}
_STATES = {"running": "RUNNING", "ending": "CANCELLING"}
_ENDS = {"succeeded": "SUCCESS", "failed": "FAILED", "cancelled": "CANCELLED", "timed_out": "CANCELLED"}


@dataclass(kw_only=True)
class JobRun(RunRecord):
    """One job run.

    Attributes:
        shown: as the API shows it.
        token: the client token that it was asked for with.
        request: digest of the request.
    """

    shown: dict[str, Any]
    token: str
    request: str
    cancel: Callable[[float], None] = field(default=lambda seconds: None, init=False, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self.state in TERMINAL

    def headline(self) -> tuple[str, str]:
        """Return its state, and what is said about it."""
        return self.state, self.shown["stateDetails"]

    def show(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        with self.lock:
            return dict(self.shown)

    def begin(self, life: LifeCycle, machine: Machine, submission: Submission, has_started: Callable[[], bool]) -> None:
        """Run it in a thread until it ends; `has_started` starts the application if necessary and says whether it has."""
        self.cancel = life.cancel

        def lead() -> None:
            life.linger()
            self.move("PENDING")
            life.wait_for(has_started)
            life.linger()
            if not life.is_cancelled:
                self.move("SCHEDULED")
                life.linger()
            job = SparkSubmitJob(machine, self.log_folder, submission, self._logs_uri(), self.id)
            minutes = self.shown["executionTimeoutMinutes"]
            ending = life.execute(job, lambda what: self.move(_STATES[what]), minutes * life.minute_seconds)
            self.move(_ENDS[ending.kind], self._words(ending))

        life.lead(self.id, lead, lambda error: self.move("FAILED", error))

    def move(self, state: str, details: str = "") -> None:
        """Enter a state."""
        with self.lock:
            moment, shown = now(), self.shown
            shown.update(state=state, stateDetails=(details or DETAILS[state])[:_DETAILS_LENGTH], updatedAt=moment)
            if state == "RUNNING":
                shown.setdefault("startedAt", moment)
            if state in TERMINAL:
                shown["endedAt"] = moment
                shown["totalExecutionDurationSeconds"] = round((moment - shown.get("startedAt", moment)).total_seconds())
            self.change(state)

    def _words(self, ending: Ending) -> str:
        """Return what AWS says of an end."""
        if ending.kind == "succeeded":
            return DETAILS["SUCCESS"]
        if ending.kind == "failed":
            if ending.status is None:
                return f"Job failed: {ending.reason}"
            where = "Job failed, please check complete logs in configured logging destination."
            return f"{where} ExitCode: {ending.status}. Last few exceptions: {ending.reason}"
        minutes = self.shown["executionTimeoutMinutes"]
        why = f"because it ran for longer than executionTimeoutMinutes={minutes}" if ending.kind == "timed_out" else ending.reason
        return f"The job run was cancelled {why}."

    def _logs_uri(self) -> str | None:
        uri = logs_uri(self.shown)
        return below(uri, "applications", self.shown["applicationId"], "jobs", self.id, "SPARK_DRIVER") if uri else None
