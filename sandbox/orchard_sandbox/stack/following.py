"""Starts the runs that no upload event has started, shows all runs, and waits until nothing is left to do."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.stack import runs
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.published import pending_work, published_batches, running_count
from orchard_sandbox.stack.runs import ACTIVE_STATES, Count, RunResult, RunView
from orchard_sandbox.stack.screen import BatchResult, Screen

IMAGE_BATCHES, ON_ARRIVAL, ARRIVALS = "image_batches", "image_batches_on_arrival", "image_arrivals"
MODEL_DAGS = ("pca_model", "classifier_model")
_COUNTED = ("featurize", "reduce")
_LOOK_SECONDS = 2.0
_MODEL_STARTS = 3
_QUIET_LOOKS = 5
# The configuration of a run that waits for nothing.
_AT_ONCE = {"quiet_seconds": 0}
# Of a batch's runs the one that changed something is shown; many are skipped because another one does the work.
_SHOWN: tuple[tuple[RunResult, ...], ...] = (("published", "failed"), ("unchanged", "superseded"), ("empty",))


@dataclass
class Follower:
    """Follows the runs that one `make run` causes.

    Attributes:
        api: Airflow.
        environment: the environment of the stack's processes.
        check: raises when the stack is no longer whole.
        screen: the display.
        unread: says how many messages of uploads wait in the queue.
        since: when the upload began (ISO 8601, UTC): the batches' runs that events start from then on are followed, too.
    """

    api: AirflowApi
    environment: Mapping[str, str]
    check: Callable[[], None]
    screen: Screen = field(default_factory=Screen)
    unread: Callable[[], int] = lambda: 0
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    _batches: list[str] = field(default_factory=list)
    _dags: set[str] = field(default_factory=set)
    _met: set[tuple[str, str]] = field(default_factory=set)
    _plans: dict[str, Any] = field(default_factory=dict)
    _ended: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def start(self, batches: list[str]) -> None:
        """Start a run of each batch that no event has started: the upload is over, so nothing is waited for.

        A run of the batch that is still queued, from an interrupted `make run`, will list this upload too: it is taken. So is one
        that an event started; what it lists too early leads to a later run.
        """
        self._batches = batches
        self._dags = {dag_id for dag_id in (ON_ARRIVAL, *MODEL_DAGS) if self.api.has_dag(dag_id)}
        arrived = self.api.runs(ON_ARRIVAL, ACTIVE_STATES) if ON_ARRIVAL in self._dags else []
        self.since = min([self.since, *(run["run_after"] for run in arrived if run["partition_key"] in batches)])
        for batch, found in self._runs_by_batch().items():
            if not any(_will_list(run) for run in found):
                self._met.add((IMAGE_BATCHES, self.api.start_run(IMAGE_BATCHES, batch, _AT_ONCE)))

    def settle(self, has_uploaded: bool) -> tuple[str, str] | None:
        """Show the runs until all of them have ended, and those of the models' DAGs that they cause; start one where needed.

        From an event of an upload to the batch's run, and from a published batch to the models' runs, are some seconds. So
        where events are under way, or work is left, one look that finds nothing active is not enough.

        Returns:
            The DAG and the id of the last run of a model's DAG where that failed.
        """
        listens = has_uploaded and ON_ARRIVAL in self._dags
        silent = idle = 0
        starts: Counter[str] = Counter()
        while True:
            self.check()
            silent = 0 if listens and self._has_messages() else silent + 1
            is_active, failed = self._look()
            idle = 0 if is_active else idle + 1
            pending = self._pending() if idle else None
            if pending == {} or idle >= _QUIET_LOOKS:
                if failed or (not pending and (not listens or silent >= _QUIET_LOOKS)):
                    return failed
                for dag_id, work in (pending or {}).items():
                    self._start_model(dag_id, work, starts)
                idle = 0 if pending else idle
            time.sleep(_LOOK_SECONDS)

    def _has_messages(self) -> bool:
        """Tell whether there is a message of an upload, or a run that takes one."""
        return bool(self.unread() or self.api.runs(ARRIVALS, ACTIVE_STATES))

    def _look(self) -> tuple[bool, tuple[str, str] | None]:
        """Show all runs; return whether one is active, and the last run of a model's DAG where that failed."""
        by_batch = self._runs_by_batch()
        models = {dag_id: self._runs_of(dag_id) for dag_id in MODEL_DAGS if dag_id in self._dags}
        views = [self._told(batch, found)[1] for batch, found in by_batch.items()]
        last = {  # one line is enough for a model
            dag_id: max(found, key=lambda run: (run["state"] in ACTIVE_STATES, run["run_after"]))
            for dag_id, found in models.items()
            if found
        }
        self.screen.show([*views, *(self._view(dag_id, run) for dag_id, run in last.items())])
        is_active = any(run["state"] in ACTIVE_STATES for found in (*models.values(), *by_batch.values()) for run in found)
        failed = [(dag_id, run["dag_run_id"]) for dag_id, run in last.items() if run["state"] == "failed"]
        return is_active, failed[0] if failed else None

    def _pending(self) -> dict[str, str]:
        return {dag_id: work for dag_id, work in pending_work(self.environment).items() if dag_id in self._dags}

    def _start_model(self, dag_id: str, pending: str, starts: Counter[str]) -> None:
        if starts[dag_id] == _MODEL_STARTS:
            raise SandboxError(f"{dag_id} ran {_MODEL_STARTS} times and is not done: {pending}; look at its runs in the UI")
        starts[dag_id] += 1
        self.api.start_run(dag_id, None, {})

    def results(self) -> list[BatchResult]:
        """Return what each batch came to."""
        published = published_batches(self.environment)
        found = []
        for batch, run in self._told_runs().items():
            outcome = runs.outcome_of(run, self._instances(run))
            found.append(BatchResult(batch, outcome, run["duration"], None if outcome == "failed" else published.get(batch)))
        return found

    def failed_runs(self) -> list[tuple[str, str]]:
        """Return (dag_id, run_id) of the run of each batch that failed."""
        return [(run["dag_id"], run["dag_run_id"]) for run in self._told_runs().values() if run["state"] == "failed"]

    def _told_runs(self) -> dict[str, dict[str, Any]]:
        return {batch: self._told(batch, found)[0] for batch, found in self._runs_by_batch().items()}

    def _runs_by_batch(self) -> dict[str, list[dict[str, Any]]]:
        """Return the runs of each batch; a backfill's, or one of the UI, does the work of this command's own."""
        found: dict[str, list[dict[str, Any]]] = {batch: [] for batch in self._batches}
        arrived = self._runs_of(ON_ARRIVAL, self.since) if ON_ARRIVAL in self._dags else []
        for run in arrived + self._runs_of(IMAGE_BATCHES):
            if run["partition_key"] in found:
                found[run["partition_key"]].append(run)
        return found

    def _runs_of(self, dag_id: str, since: str = "") -> list[dict[str, Any]]:
        """Return the runs of a DAG that came since a moment; without one, those that were active at a look."""
        listed = {(dag_id, run["dag_run_id"]): run for run in self.api.runs(dag_id, since=since)}
        ours = {key for key, run in listed.items() if run["partition_key"] in (*self._batches, None)}
        self._met |= {key for key in ours if since or listed[key]["state"] in ACTIVE_STATES}
        if gone := {key for key in self._met if key[0] == dag_id} - listed.keys():
            raise _gone(min(gone)[1], dag_id)
        return [run for key, run in listed.items() if key in self._met]

    def _told(self, batch: str, found: list[dict[str, Any]]) -> tuple[dict[str, Any], RunView]:
        """Return the run that represents a batch, and its view: an active one, else the last that changed something."""
        views = {run["dag_run_id"]: self._view(batch, run) for run in found}
        active = [run for run in found if run["state"] in ACTIVE_STATES]
        if active:
            shown = max(active, key=lambda run: _nearness(views[run["dag_run_id"]]))
            view = views[shown["dag_run_id"]]
            is_published = any(views[run["dag_run_id"]].task == "published" for run in found if run not in active)
            return shown, replace(view, task=f"again: {view.task}") if is_published and view.task else view
        for outcomes in _SHOWN:
            ended = [run for run in found if views[run["dag_run_id"]].task in outcomes]
            if ended:
                shown = max(ended, key=lambda run: run["end_date"] or "")
                return shown, views[shown["dag_run_id"]]
        raise _gone(f"of batch {batch}", ON_ARRIVAL)

    def failures(self, dag_id: str, run_id: str) -> str:
        """Return why a run failed: the task, its exception and the end of its log."""
        failed = runs.failed_task(self.api.task_instances(dag_id, run_id))
        if failed is None:
            return f"run {run_id} of {dag_id} failed without a failed task: see the UI"
        log = self.api.task_log(failed)
        lines = "\n".join(f"    {line}" for line in runs.end_of_log(log))
        return f"task {failed['task_id']} failed: {runs.reason_of(log) or 'see the end of its log'}\n{lines}"

    def _instances(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a run's task instances; those of a queued run do nothing yet, those of an ended one are asked for once."""
        dag_id, run_id = run["dag_id"], run["dag_run_id"]
        if run["state"] == "queued":
            return []
        if run["state"] in ACTIVE_STATES:
            return self.api.task_instances(dag_id, run_id)
        if run_id not in self._ended:
            self._ended[run_id] = self.api.task_instances(dag_id, run_id)
        return self._ended[run_id]

    def _view(self, batch: str, run: dict[str, Any]) -> RunView:
        instances = self._instances(run)
        if run["state"] not in ACTIVE_STATES:
            return RunView(batch, run["state"], runs.outcome_of(run, instances) if batch not in MODEL_DAGS else "")
        task, state = runs.busy_task(instances)
        if state != "running":
            return RunView(batch, run["state"], f"{task} ({state})" if state else task)
        return RunView(batch, run["state"], task, self._count(run, task) if task in _COUNTED else None)

    def _count(self, run: dict[str, Any], task: str) -> Count | None:
        run_id = run["dag_run_id"]
        self._plans[run_id] = self._plans.get(run_id) or self.api.result(run["dag_id"], run_id, "plan_batch")
        return running_count(self.environment, self._plans[run_id], task) if self._plans[run_id] else None


def _will_list(run: Mapping[str, Any]) -> bool:
    """Tell whether a run of a batch still lists what is uploaded now, or leads to one that does."""
    is_queued = run["state"] == "queued" and run.get("conf") == _AT_ONCE
    return is_queued or (run["dag_id"] == ON_ARRIVAL and run["state"] in ACTIVE_STATES)


def _nearness(view: RunView) -> tuple[bool, bool]:
    """Return how far a run has come: of several runs of a batch, the others wait for the first."""
    return bool(view.count), view.state == "running" and not view.task.startswith("wait_for_uploads")


def _gone(run: str, dag_id: str) -> SandboxError:
    return SandboxError(f"run {run} of {dag_id} is gone: it was deleted in the UI; start it again by `make run`")
