"""Interprets Airflow's answers about one run: its task, its outcome, and why it failed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

RunResult = Literal["published", "unchanged", "empty", "superseded", "failed"]
ACTIVE_STATES = ("queued", "running")
_BUSY = ("running", "deferred", "restarting", "up_for_retry", "up_for_reschedule", "queued", "scheduled")
_SKIPS: dict[str, RunResult] = {"wait_for_uploads": "empty", "plan_batch": "unchanged", "publish": "superseded"}
_LOG_LINES = 40


@dataclass(frozen=True)
class Count:
    """A job's running count: images done of all."""

    done: int
    total: int


@dataclass(frozen=True)
class RunView:
    """One run as the live display shows it.

    Attributes:
        batch: the batch's name.
        state: the run's state.
        task: the task that is at work and, unless it runs, its state; nothing before the first.
        count: the running job's count, when it has one.
    """

    batch: str
    state: str
    task: str
    count: Count | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state not in ACTIVE_STATES


def busy_task(instances: Iterable[dict[str, Any]]) -> tuple[str, str]:
    """Return (task, state) of the task that is furthest at work; two empty strings when none is."""
    for state in _BUSY:
        for instance in instances:
            if instance["state"] == state:
                return instance["task_id"], state
    return "", ""


def outcome_of(run: dict[str, Any], instances: Iterable[dict[str, Any]]) -> RunResult:
    """Return the outcome of a run that has ended; for Airflow, a run with skipped tasks is a success."""
    states = {instance["task_id"]: instance["state"] for instance in instances}
    if run["state"] != "success":
        return "failed"
    for task, outcome in _SKIPS.items():
        if states.get(task) == "skipped":
            return outcome
    return "published"


def failed_task(instances: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the task instance that made a run fail: the first to end as failed."""
    failed = [instance for instance in instances if instance["state"] == "failed"]
    return min(failed, key=lambda instance: instance["end_date"] or "", default=None)


def reason_of(log: Sequence[dict[str, Any] | str]) -> str:
    """Return the exception of a task's log, `Type: message`; nothing when it has none."""
    for event in reversed(log):
        for detail in reversed(event.get("error_detail") or [] if isinstance(event, dict) else []):
            return f"{detail['exc_type']}: {detail['exc_value']}"
    return ""


def end_of_log(log: Sequence[dict[str, Any] | str]) -> list[str]:
    """Return the last lines of a task's log, which hold those of its Spark job, without Airflow's own bracketing."""
    texts = [event if isinstance(event, str) else str(event.get("event", "")) for event in log]
    lines = [line for text in texts for line in text.splitlines() if not line.startswith(("::group::", "::endgroup::"))]
    return lines[-_LOG_LINES:]
