"""The Jobs API of the Databricks stand-in: runs that are submitted."""

import threading
from collections.abc import Callable
from typing import Any

from orchard_sandbox.databricks.compute import Workspace
from orchard_sandbox.databricks.requests import check_request, invalid, number_of
from orchard_sandbox.databricks.runs import Run, now

RUNS_API = "/api/2.2/jobs/runs/"
Given = dict[str, Any]


class Jobs:
    """The runs of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._folder = workspace.folder / "runs"
        self._lock = threading.Lock()
        self._runs = {run.run_id: run for run in Run.read_all(self._folder)}
        for run in self._runs.values():
            if not run.is_over:
                run.lose()

    def calls(self) -> dict[tuple[str, str], Callable[[Given], Given]]:
        """Return the API's calls by method and path."""
        return {
            ("POST", f"{RUNS_API}submit"): self._submit,
            ("GET", f"{RUNS_API}get"): lambda given: self._run(given).show(self._workspace.address),
            ("GET", f"{RUNS_API}get-output"): self._output,
            ("POST", f"{RUNS_API}cancel"): self._cancel,
        }

    def find(self, name: str) -> Run | None:
        """Return a run by its number."""
        return self._runs.get(int(name)) if name.isdigit() else None

    def _submit(self, given: Given) -> Given:
        """Start a run, or return the run that the token started before, whatever its state."""
        check_request(given)
        token = given.get("idempotency_token")
        with self._lock:
            known = [run for run in self._runs.values() if token and run.request.get("idempotency_token") == token]
            if known:
                return {"run_id": known[0].run_id}
            used = [int(path.name) for path in self._folder.glob("[0-9]*")]  # of other releases, too
            number = max(used, default=1000) + 10
            run = Run(folder=self._folder / str(number), states=["PENDING"], run_id=number, request=given, start_time=now())
            run.save()
            self._runs[number] = run
        run.begin(self._workspace)
        return {"run_id": number}

    def _run(self, given: Given) -> Run:
        number = number_of(given, "run_id")
        run = self._runs.get(number) or self._runs.get(number - 1)
        if run is None:
            raise invalid(f"Run {number} does not exist.")
        return run

    def _output(self, given: Given) -> Given:
        run = self._run(given)
        if int(given["run_id"]) != run.task_run_id:
            raise invalid("Retrieving the output of runs with multiple tasks is not supported. Retrieve each task's output.")
        return run.output(self._workspace.address)

    def _cancel(self, given: Given) -> Given:
        self._run(given).cancel()
        return {}
