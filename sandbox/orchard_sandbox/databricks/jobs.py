"""The Jobs API of the Databricks stand-in: stored jobs, and runs that are submitted or started from a job."""

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchard_sandbox.databricks.compute import Workspace
from orchard_sandbox.databricks.requests import check_job, check_request, check_start, invalid, is_true, number_of, refuse_unknown
from orchard_sandbox.databricks.runs import Run, now
from orchard_sandbox.files import write_whole

JOBS_API = "/api/2.2/jobs/"
Given = dict[str, Any]


class Jobs:
    """The jobs and runs of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._folder, self._runs_folder = workspace.folder / "jobs", workspace.folder / "runs"
        self._lock = threading.Lock()
        self._runs = {run.run_id: run for run in Run.read_all(self._runs_folder)}
        for run in self._runs.values():
            if not run.is_over:
                run.lose()

    def calls(self) -> dict[tuple[str, str], Callable[[Given], Given]]:
        """Return the API's calls by method and path."""
        return {
            ("POST", f"{JOBS_API}runs/submit"): self._submit,
            ("GET", f"{JOBS_API}runs/get"): lambda given: self._run(given).show(self._workspace.address),
            ("GET", f"{JOBS_API}runs/get-output"): self._output,
            ("GET", f"{JOBS_API}runs/list"): self._list_runs,
            ("POST", f"{JOBS_API}runs/cancel"): self._cancel,
            ("POST", f"{JOBS_API}create"): self._create,
            ("GET", f"{JOBS_API}get"): self._get,
            ("GET", f"{JOBS_API}list"): self._list,
            ("POST", f"{JOBS_API}delete"): self._delete,
            ("POST", f"{JOBS_API}run-now"): self._run_now,
        }

    def find(self, name: str) -> Run | None:
        """Return a run by its number."""
        return self._runs.get(int(name)) if name.isdigit() else None

    def _submit(self, given: Given) -> Given:
        """Start a run, or return the run that the token started before, whatever its state."""
        check_request(given)
        return {"run_id": self._start(given).run_id}

    def _run_now(self, given: Given) -> Given:
        """Start a run of a job, with the token and the parameters of the call."""
        check_start(given)
        settings = self._get(given)["settings"]
        taken = ("tasks", "environments", "timeout_seconds")
        request = {name: copy.deepcopy(settings[name]) for name in taken if name in settings}
        if "python_params" in given:
            request["tasks"][0]["python_wheel_task"]["parameters"] = given["python_params"]
        if "idempotency_token" in given:
            request["idempotency_token"] = given["idempotency_token"]
        run = self._start(request | {"run_name": settings.get("name", "Untitled")}, int(given["job_id"]))
        return {"run_id": run.run_id, "number_in_job": run.run_id}

    def _start(self, given: Given, job_id: int | None = None) -> Run:
        token = given.get("idempotency_token")
        with self._lock:
            is_busy = job_id is not None and any(run.job_id == job_id and not run.is_over for run in self._runs.values())
            known = [run for run in self._runs.values() if token and run.request.get("idempotency_token") == token]
            if known:
                return known[0]
            used = [int(path.name) for path in self._runs_folder.glob("[0-9]*")]  # of other releases, too
            number = max(used, default=1000) + 10
            folder = self._runs_folder / str(number)
            run = Run(folder=folder, states=["PENDING"], run_id=number, request=given, start_time=now(), job_id=job_id)
            run.save()
            self._runs[number] = run
        if is_busy:
            run.skip()
        else:
            run.begin(self._workspace)
        return run

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

    def _list_runs(self, given: Given) -> Given:
        refuse_unknown(given, ("active_only", "completed_only", "limit", "run_type", "expand_tasks", "page_token", "offset"))
        unwanted = {is_over for name, is_over in (("active_only", True), ("completed_only", False)) if is_true(given, name)}
        shown = [run.show(self._workspace.address) for run in reversed(self._runs.values()) if run.is_over not in unwanted]
        for one in shown:
            if not is_true(given, "expand_tasks"):
                one.pop("tasks")
        first, limit = int(given.get("page_token") or 0), int(given.get("limit") or 20)
        more = {"next_page_token": str(first + limit)} if len(shown) > first + limit else {}
        return {"runs": shown[first : first + limit], "has_more": bool(more), **more}

    def _cancel(self, given: Given) -> Given:
        self._run(given).cancel()
        return {}

    def _create(self, given: Given) -> Given:
        check_job(given)
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            number = max((int(path.stem) for path in self._folder.glob("*.json")), default=100) + 1
            job = {"job_id": number, "created_time": now(), "creator_user_name": "orchard", "settings": given}
            write_whole(self._folder / f"{number}.json", json.dumps(job))
        return {"job_id": number}

    def _get(self, given: Given) -> Given:
        path = self._path(given)
        if not path.exists():
            raise invalid(f"Job {path.stem} does not exist.")
        job: Given = json.loads(path.read_text())
        return job

    def _list(self, given: Given) -> Given:
        """Return all jobs, or those of a name, the newest first."""
        refuse_unknown(given, ("name", "limit", "expand_tasks"))
        jobs = [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"), reverse=True)]
        found = [job for job in jobs if given.get("name") in (None, job["settings"].get("name"))]
        for settings in (job["settings"] for job in found if not is_true(given, "expand_tasks")):
            for name in ("tasks", "environments"):
                settings.pop(name, None)
        return {"jobs": found, "has_more": False}

    def _delete(self, given: Given) -> Given:
        """Delete a job; its runs continue."""
        self._get(given)
        self._path(given).unlink()
        return {}

    def _path(self, given: Given) -> Path:
        return self._folder / f"{number_of(given, 'job_id')}.json"
