"""A cluster service whose jobs outlive their tasks, and the base of the launchers' operators on it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from orchard.launchers.attempts import Attempts
from orchard.launchers.emr_hook import NamingEmrHook
from orchard.launchers.request import JobRequest, planned_work
from orchard.launchers.resumable_job import JobState, ResumableJob
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.jobs import Stage
from orchard_jobs.storage import Warehouse

from support.simulation.scheduler import Actor
from support.simulation.store_calls import StoreCalls
from support.task_context import TaskContext

Work = Callable[[], object]


@dataclass
class Vendor:
    """Starts jobs and knows their state.

    Attributes:
        calls: where the calls pass; an answer can be lost here, too.
        takes_tokens: whether it starts one job a token, as EMR Serverless and Databricks do; EMR starts one a call.
        prepare: takes each job before it begins.
        jobs: by id.
    """

    calls: StoreCalls
    takes_tokens: bool
    prepare: Callable[[Actor], Actor]
    jobs: dict[str, tuple[str, Actor]] = field(default_factory=dict)

    def start(self, token: str, work: Work) -> str:
        """Start a job, or reach that of the token; return its id."""

        def act() -> str:
            found = self.find(token) if self.takes_tokens else None
            if found is not None:
                return found
            job = f"job {len(self.jobs)}"
            self.jobs[job] = (token, self.calls.scheduler.spawn(self.prepare(Actor(job, work))))
            return job

        return self.calls.write("start a job", act)

    def find(self, token: str) -> str | None:
        """Return the newest job of a token."""
        return next((job for job, (own, _) in reversed(self.jobs.items()) if own == token), None)

    def is_over(self, job: str) -> bool:
        """Tell whether a job has ended."""
        return self.jobs[job][1].is_over

    def check_turns(self) -> None:
        """Let no job of a token have been started beside another, where tokens are taken."""
        tokens = [token for token, _ in self.jobs.values()]
        assert not self.takes_tokens or len(tokens) == len(set(tokens)), "a token started two jobs"


class SimulatedOperator(ResumableJob):
    """The launchers' base, on the simulated vendor."""

    vendor = "simulated job"

    def __init__(self, service: Vendor, warehouse: Warehouse, stage: Stage, work: Work) -> None:
        self.service, self.files, self.work = service, warehouse, work
        self.request, self.warehouse = JobRequest(stage, plan_task="plan_batch"), warehouse.uri

    def execute(self, planned: PlannedJobs) -> None:
        """Run the job, or reach it, and wait for its end; nothing where its report is there."""
        context = TaskContext(planned)
        try:
            token = self.begin(context)
        except AirflowSkipException:
            return
        job = self.under_way or {"job_id": self._start(token, context)}
        self.record_start(context, job)
        self.service.calls.scheduler.wait(lambda: self.service.is_over(job["job_id"]))
        if self.service.jobs[job["job_id"]][1].error is not None:
            raise self.failure(context, job, "it failed")

    def job_state(self, job: dict[str, str]) -> JobState:
        """See ResumableJob."""
        is_over = self.service.calls.read("state of a job", lambda: self.service.is_over(job["job_id"]))
        return JobState("OVER" if is_over else "RUNNING", "", is_over)

    def cancel(self, job: dict[str, str]) -> None:
        """See ResumableJob."""

    def last_lines(self, job: dict[str, str]) -> list[str]:
        """See ResumableJob."""
        return []

    def _start(self, token: str, context: Any) -> str:
        found = None
        if not self.service.takes_tokens:
            # The hook's own rule for a vendor without tokens; it needs nothing of the connection.
            hook: Any = SimpleNamespace(claim=lambda: self.claim(context))
            found = NamingEmrHook._found(hook, lambda: self.service.calls.read("find a job", lambda: self.service.find(token)))
        return found or self.service.start(token, self.work)

    def _attempts(self, context: Any) -> Attempts:
        return Attempts(self.files, planned_work(self.request, context))
