"""Jobs that the Databricks stand-in keeps: their settings, and the request of a run that is started from one."""

import copy
import json
import threading
from pathlib import Path
from typing import Any

from orchard_sandbox.databricks_requests import check_job, check_start, invalid, is_true
from orchard_sandbox.databricks_runs import now


class Jobs:
    """The jobs of a workspace, each a file.

    Args:
        folder: where they are kept; made when the first is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def create(self, given: dict[str, Any]) -> dict[str, Any]:
        """Keep a job; return its number."""
        check_job(given)
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            number = max((int(path.stem) for path in self._folder.glob("*.json")), default=100) + 1
            job = {"job_id": number, "created_time": now(), "creator_user_name": "orchard", "settings": given}
            (self._folder / f"{number}.json").write_text(json.dumps(job))
        return {"job_id": number}

    def get(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a job as it was created."""
        path = self._path(given)
        if not path.exists():
            raise invalid(f"Job {path.stem} does not exist.")
        job: dict[str, Any] = json.loads(path.read_text())
        return job

    def list(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return all jobs, or those of a name, the newest first."""
        unknown = sorted(given.keys() - {"name", "limit", "expand_tasks"})
        if unknown:
            raise invalid(f"{unknown} is not known here")
        jobs = [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"), reverse=True)]
        found = [job for job in jobs if str(given.get("name", job["settings"].get("name"))) == job["settings"].get("name")]
        for job in found:
            if not is_true(given, "expand_tasks"):
                job["settings"] = {
                    name: value for name, value in job["settings"].items() if name not in ("tasks", "environments")
                }
        return {"jobs": found, "has_more": False}

    def delete(self, given: dict[str, Any]) -> dict[str, Any]:
        """Forget a job; its runs go on."""
        self.get(given)
        self._path(given).unlink()
        return {}

    def request(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return what a run of a job asks for: the job's settings, with the call's token and parameters."""
        check_start(given)
        settings = self.get(given)["settings"]
        request = {
            name: copy.deepcopy(settings[name]) for name in ("tasks", "environments", "timeout_seconds") if name in settings
        }
        if "python_params" in given:
            request["tasks"][0]["python_wheel_task"]["parameters"] = given["python_params"]
        if "idempotency_token" in given:
            request["idempotency_token"] = given["idempotency_token"]
        return request | {"run_name": settings.get("name", "Untitled")}

    def _path(self, given: dict[str, Any]) -> Path:
        try:
            return self._folder / f"{int(given['job_id'])}.json"
        except (KeyError, ValueError) as error:
            raise invalid("job_id is missing or no number") from error
