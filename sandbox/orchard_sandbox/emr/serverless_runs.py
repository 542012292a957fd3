"""An EMR Serverless job run: translates the life cycle into the states and messages that `GetJobRun` shows."""

from dataclasses import dataclass
from typing import Any

from orchard_jobs.contract.locations import below

from orchard_sandbox.emr.submissions import Submission, logs_uri
from orchard_sandbox.emr.submitted_script import SparkSubmitJob
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import Ending, Run
from orchard_sandbox.job_execution.records import now

TERMINAL = ("SUCCESS", "FAILED", "CANCELLED")
_DETAILS_LENGTH = 256


@dataclass(kw_only=True)
class JobRun(Run):
    """One job run.

    Attributes:
        shown: as the API shows it.
        token: the client token that it was asked for with.
        request: digest of the request.
    """

    STATES = {"running": "RUNNING", "ending": "CANCELLING"}
    ENDS = {"succeeded": "SUCCESS", "failed": "FAILED", "cancelled": "CANCELLED", "timed_out": "CANCELLED"}
    shown: dict[str, Any]
    token: str
    request: str

    def headline(self) -> tuple[str, str]:
        """Return its state, and what is said about it."""
        return self.state, self.shown["stateDetails"]

    def show(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        with self.lock:
            return dict(self.shown)

    def lose(self, reason: str) -> None:
        """End a run that nothing executes any more."""
        self.change("FAILED", reason)

    def start(self, machine: Machine, submission: Submission) -> None:
        """Run it in a thread until it ends."""

        def work() -> None:
            for state in ("PENDING", "SCHEDULED"):
                self.change(state)
            job = SparkSubmitJob(machine, self.log_folder, submission, self._logs_uri(), self.id)
            ending = self.execute(job, self.shown["executionTimeoutMinutes"] * 60)
            self.change(self.ENDS[ending.kind], self._words(ending))

        self.begin(work)

    def change(self, state: str, details: str = "") -> None:
        """Enter a state, and write the record."""
        with self.lock:
            moment, shown = now(), self.shown
            text = details or f"The job run is {state}."  # AWS requires some text in each state
            shown.update(state=state, stateDetails=text[:_DETAILS_LENGTH], updatedAt=moment)
            if state == "RUNNING":
                shown.setdefault("startedAt", moment)
            if state in TERMINAL:
                shown["endedAt"] = moment
                shown["totalExecutionDurationSeconds"] = round((moment - shown.get("startedAt", moment)).total_seconds())
            super().change(state)

    def _words(self, ending: Ending) -> str:
        """Return what AWS says of an end."""
        if ending.kind == "succeeded":
            return ""
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
