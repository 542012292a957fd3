"""Runs from their start to their end: starts one a batch, shows them, and waits until the model has nothing left to do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchard_sandbox.airflow_api import AirflowApi
from orchard_sandbox.errors import SandboxError
from orchard_sandbox.published import PublishedBatch, pending_work, published_batches, running_count
from orchard_sandbox.runs import ACTIVE_STATES, RunView, busy_task, end_of_log, failed_task, outcome_of, reason_of
from orchard_sandbox.screen import BatchResult, Screen

IMAGE_BATCHES, PCA_MODEL = "image_batches", "pca_model"
_COUNTED = ("featurize", "reduce")
_LOOK_SECONDS = 2.0
_MODEL_STARTS = 3
_QUIET_LOOKS = 5


@dataclass
class Follower:
    """Follows the runs that one `make run` causes.

    Attributes:
        api: Airflow.
        environment: the environment of the stack's processes.
        check: raises when the stack is no longer whole.
        screen: the display.
    """

    api: AirflowApi
    environment: Mapping[str, str]
    check: Callable[[], None]
    screen: Screen = field(default_factory=Screen)
    _plans: dict[str, Any] = field(default_factory=dict)
    _ended: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def start(self, batches: list[str]) -> dict[str, str]:
        """Start one run a batch and return their ids by batch: the upload is over, so nothing is waited for.

        A run of the batch that is still queued, from an interrupted `make run`, will list this upload too: it is taken.
        """
        conf = {"quiet_seconds": 0}
        queued = {
            run["partition_key"]: run["dag_run_id"] for run in self.api.runs(IMAGE_BATCHES, ("queued",)) if run["conf"] == conf
        }
        return {batch: queued.get(batch) or self.api.start_run(IMAGE_BATCHES, batch, conf) for batch in batches}

    def follow(self, run_ids: Mapping[str, str]) -> None:
        """Show the runs until all have ended."""
        while True:
            self.check()
            runs, instances = self._look(IMAGE_BATCHES, list(run_ids.values()))
            views = [self._view(batch, runs[run_id], instances[run_id]) for batch, run_id in run_ids.items()]
            self.screen.show(views)
            if all(view.is_over for view in views):
                return
            time.sleep(_LOOK_SECONDS)

    def results(self, run_ids: Mapping[str, str]) -> list[BatchResult]:
        """Return what each ended run came to."""
        runs, instances = self._look(IMAGE_BATCHES, list(run_ids.values()))
        published = published_batches(self.environment)
        return [_result(batch, runs[run_id], instances[run_id], published) for batch, run_id in run_ids.items()]

    def settle_model(self) -> str | None:
        """Wait until no run of pca_model is active and the tables say that it has nothing to do; start one where it has.

        Returns:
            The id of a run that failed; None when all is well.
        """
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
        """Return why a run failed: the task, its exception, and the end of its log."""
        failed = failed_task(self.api.task_instances(dag_id, run_id))
        if failed is None:
            return f"run {run_id} of {dag_id} failed without a failed task: see the UI"
        log = self.api.task_log(failed)
        lines = "\n".join(f"    {line}" for line in end_of_log(log))
        return f"task {failed['task_id']} failed: {reason_of(log) or 'see the end of its log'}\n{lines}"

    def _wait_for_model(self) -> str | None:
        """Show the runs of pca_model until none is active; return one that was seen and failed.

        The event of a published batch becomes a run some seconds later, so one quiet look is not enough where work is left.
        """
        seen: set[str] = set()
        quiet_looks = 0
        while True:
            self.check()
            active = [run["dag_run_id"] for run in self.api.runs(PCA_MODEL, ACTIVE_STATES)]
            seen.update(active)
            runs, instances = self._look(PCA_MODEL, sorted(seen))
            shown = max(active or seen, default=None)  # ids end in their time; one line is enough for a model
            self.screen.show([self._view(PCA_MODEL, runs[shown], instances[shown])] if shown else [])
            quiet_looks = 0 if active else quiet_looks + 1
            if quiet_looks == _QUIET_LOOKS or (quiet_looks and pending_work(self.environment) is None):
                return next((run_id for run_id in sorted(seen) if runs[run_id]["state"] == "failed"), None)
            time.sleep(_LOOK_SECONDS)

    def _look(self, dag_id: str, run_ids: list[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        runs = {run["dag_run_id"]: run for run in self.api.runs(dag_id) if run["dag_run_id"] in run_ids}
        missing = set(run_ids) - set(runs)
        if missing:
            raise SandboxError(f"run {min(missing)} of {dag_id} is gone: it was deleted in the UI; start it again by `make run`")
        return runs, {run_id: self._instances(dag_id, runs[run_id]) for run_id in run_ids}

    def _instances(self, dag_id: str, run: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a run's task instances; those of a queued run do nothing yet, those of an ended one are asked for once."""
        run_id = run["dag_run_id"]
        if run["state"] == "queued":
            return []
        if run["state"] in ACTIVE_STATES:
            return self.api.task_instances(dag_id, run_id)
        if run_id not in self._ended:
            self._ended[run_id] = self.api.task_instances(dag_id, run_id)
        return self._ended[run_id]

    def _view(self, batch: str, run: dict[str, Any], instances: list[dict[str, Any]]) -> RunView:
        if run["state"] not in ACTIVE_STATES:
            is_batch = batch != PCA_MODEL
            return RunView(batch, run["state"], outcome_of(run, instances) if is_batch else "")
        task, state = busy_task(instances)
        count = self._count(run["dag_run_id"], task) if state == "running" and task in _COUNTED else None
        return RunView(batch, run["state"], task if state in ("running", "") else f"{task} ({state})", count)

    def _count(self, run_id: str, task: str) -> Any:
        if run_id not in self._plans:
            self._plans[run_id] = self.api.result(IMAGE_BATCHES, run_id, "plan_batch")
        plan = self._plans[run_id]
        return running_count(self.environment, plan, task) if plan else None


def _result(
    batch: str, run: dict[str, Any], instances: list[dict[str, Any]], published: Mapping[str, PublishedBatch]
) -> BatchResult:
    outcome = outcome_of(run, instances)
    return BatchResult(batch, outcome, run["duration"], None if outcome == "failed" else published.get(batch))
