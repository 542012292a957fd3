"""Starts the runs that no upload event has started, shows all runs, and waits until nothing is left to do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.stack import runs
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.published import pending_work, published_batches, running_count
from orchard_sandbox.stack.runs import ACTIVE_STATES, Count, Outcome, RunView
from orchard_sandbox.stack.screen import BatchResult, Screen

IMAGE_BATCHES, ON_ARRIVAL, ARRIVALS, PCA_MODEL = "image_batches", "image_batches_on_arrival", "image_arrivals", "pca_model"
_COUNTED = ("featurize", "reduce")
_LOOK_SECONDS = 2.0
_MODEL_STARTS = 3
_QUIET_LOOKS = 5
# Of a batch's runs the one that changed something is told; many are skipped because another one does the work.
_TOLD: tuple[tuple[Outcome, ...], ...] = (("published", "failed"), ("unchanged", "superseded"), ("empty",))


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
    _started: dict[str, str | None] = field(default_factory=dict)
    _met: set[str] = field(default_factory=set)
    _hears: bool = False
    _listens: bool = False
    _quiet_looks: int = 0
    _plans: dict[str, Any] = field(default_factory=dict)
    _ended: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def start(self, batches: list[str]) -> None:
        """Start a run of each batch that no event has started: the upload is over, so nothing is waited for.

        A run of the batch that is still queued, from an interrupted `make run`, will list this upload too: it is taken. So is one
        that an event started; what it lists too early leads to a later run.
        """
        self._hears = self.api.has_dag(ON_ARRIVAL)
        arrived = self.api.runs(ON_ARRIVAL, ACTIVE_STATES) if self._hears else []
        announced = {run["partition_key"]: run["run_after"] for run in arrived if run["partition_key"] in batches}
        self.since = min([self.since, *announced.values()])
        conf = {"quiet_seconds": 0}
        queued = {
            run["partition_key"]: run["dag_run_id"] for run in self.api.runs(IMAGE_BATCHES, ("queued",)) if run["conf"] == conf
        }
        for batch in batches:
            self._started[batch] = queued.get(batch)
            if batch not in announced and batch not in queued:
                self._started[batch] = self.api.start_run(IMAGE_BATCHES, batch, conf)

    def settle(self, has_uploaded: bool) -> str | None:
        """Show the runs until all of them have ended, and those of pca_model that they cause.

        Where events of uploads are under way, the runs that they start are waited for. Returns the id of a run of pca_model
        that failed.
        """
        self._listens = has_uploaded and self._hears
        while True:
            self.follow()
            failed = self.settle_model()
            if failed or self._is_calm():
                return failed
            time.sleep(_LOOK_SECONDS)

    def follow(self) -> None:
        """Show the runs of the batches until none is active."""
        while True:
            self.check()
            self._listen()
            by_batch = self._runs_by_batch()
            self.screen.show([self._told(batch, found)[1] for batch, found in by_batch.items()])
            if not _any_active(by_batch):
                return
            time.sleep(_LOOK_SECONDS)

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

    def _listen(self) -> None:
        """Count the looks since a message, or a run that takes one, was seen."""
        if self._listens:
            self._quiet_looks = 0 if self.unread() or self.api.runs(ARRIVALS, ACTIVE_STATES) else self._quiet_looks + 1

    def _is_calm(self) -> bool:
        """Tell whether no message was seen for some looks and no run is active: from a message to the run it starts is a gap."""
        return not self._listens or (self._quiet_looks >= _QUIET_LOOKS and not _any_active(self._runs_by_batch()))

    def _runs_by_batch(self) -> dict[str, list[dict[str, Any]]]:
        """Return the runs of each batch: the started one, those that events caused, and those that were active before."""
        started = {run["dag_run_id"]: run for run in self.api.runs(IMAGE_BATCHES)}
        # A backfill's run, or one of the UI: this command's own run leaves the batch to it.
        self._met |= {run_id for run_id, run in started.items() if run["state"] in ACTIVE_STATES}
        gone = {run_id for run_id in self._started.values() if run_id} - set(started)
        if gone:
            raise _gone(min(gone), IMAGE_BATCHES)
        arrived = self.api.runs(ON_ARRIVAL, since=self.since) if self._hears else []
        found = {}
        for batch, run_id in self._started.items():
            own = [run for run in arrived if run["partition_key"] == batch] + ([started[run_id]] if run_id else [])
            others = (started[met] for met in self._met & set(started) if met != run_id)
            found[batch] = own + [run for run in others if run.get("partition_key") == batch]
        return found

    def _told(self, batch: str, found: list[dict[str, Any]]) -> tuple[dict[str, Any], RunView]:
        """Return the run that represents a batch, and its view: an active one, else the last that changed something."""
        views = {run["dag_run_id"]: self._view(batch, run) for run in found}
        active = [run for run in found if run["state"] in ACTIVE_STATES]
        if active:
            told = max(active, key=lambda run: _nearness(views[run["dag_run_id"]]))
            view = views[told["dag_run_id"]]
            is_published = any(views[run["dag_run_id"]].task == "published" for run in found if run not in active)
            return told, replace(view, task=f"again: {view.task}") if is_published and view.task else view
        for outcomes in _TOLD:
            ended = [run for run in found if views[run["dag_run_id"]].task in outcomes]
            if ended:
                told = max(ended, key=lambda run: run["end_date"] or "")
                return told, views[told["dag_run_id"]]
        raise _gone(f"of batch {batch}", ON_ARRIVAL)

    def settle_model(self) -> str | None:
        """Wait until no run of pca_model is active and none is needed; start one where it is. Return one that failed."""
        if not self.api.has_dag(PCA_MODEL):
            return None
        for starts in range(_MODEL_STARTS + 1):
            failed = self._wait_for_model()
            pending = pending_work(self.environment)
            if failed or pending is None:
                return failed
            if starts < _MODEL_STARTS:
                self.api.start_run(PCA_MODEL, None, {})
        raise SandboxError(f"{PCA_MODEL} ran {_MODEL_STARTS} times and still has to do: {pending}; look at its runs in the UI")

    def failures(self, dag_id: str, run_id: str) -> str:
        """Return why a run failed: the task, its exception and the end of its log."""
        failed = runs.failed_task(self.api.task_instances(dag_id, run_id))
        if failed is None:
            return f"run {run_id} of {dag_id} failed without a failed task: see the UI"
        log = self.api.task_log(failed)
        lines = "\n".join(f"    {line}" for line in runs.end_of_log(log))
        return f"task {failed['task_id']} failed: {runs.reason_of(log) or 'see the end of its log'}\n{lines}"

    def _wait_for_model(self) -> str | None:
        """Show the runs of pca_model until none is active; return one that was seen and failed.

        The event of a published batch becomes a run some seconds later, so one quiet look is not enough where work is left.
        """
        seen: set[str] = set()
        quiet_looks = 0
        while True:
            self.check()
            self._listen()
            known = {run["dag_run_id"]: run for run in self.api.runs(PCA_MODEL)}
            active = [run_id for run_id, run in known.items() if run["state"] in ACTIVE_STATES]
            seen.update(active)
            if gone := seen - set(known):
                raise _gone(min(gone), PCA_MODEL)
            shown = max(active or seen, default=None)  # ids end in their time; one line is enough for a model
            self.screen.show([self._view(PCA_MODEL, known[shown])] if shown else [])
            quiet_looks = 0 if active else quiet_looks + 1
            if quiet_looks == _QUIET_LOOKS or (quiet_looks and pending_work(self.environment) is None):
                return next((run_id for run_id in sorted(seen) if known[run_id]["state"] == "failed"), None)
            time.sleep(_LOOK_SECONDS)

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
            return RunView(batch, run["state"], runs.outcome_of(run, instances) if batch != PCA_MODEL else "")
        task, state = runs.busy_task(instances)
        if state != "running":
            return RunView(batch, run["state"], f"{task} ({state})" if state else task)
        return RunView(batch, run["state"], task, self._count(run, task) if task in _COUNTED else None)

    def _count(self, run: dict[str, Any], task: str) -> Count | None:
        run_id = run["dag_run_id"]
        self._plans[run_id] = self._plans.get(run_id) or self.api.result(run["dag_id"], run_id, "plan_batch")
        return running_count(self.environment, self._plans[run_id], task) if self._plans[run_id] else None


def _any_active(runs: Mapping[str, list[dict[str, Any]]]) -> bool:
    return any(run["state"] in ACTIVE_STATES for found in runs.values() for run in found)


def _nearness(view: RunView) -> tuple[bool, bool]:
    """Return how far a run has come: of several runs of a batch, the others wait for the first."""
    return bool(view.count), view.state == "running" and not view.task.startswith("wait_for_uploads")


def _gone(run: str, dag_id: str) -> SandboxError:
    return SandboxError(f"run {run} of {dag_id} is gone: it was deleted in the UI; start it again by `make run`")
