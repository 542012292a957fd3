"""Airflow's REST API as the sandbox needs it; it knows nothing of batches."""

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.stack.stack_paths import USER

_PAGE = 100
# Of a busy database, too; a run that is started twice does no harm.
_RETRY = Retry(total=4, backoff_factor=0.5, status_forcelist=range(500, 600), allowed_methods=None, raise_on_status=False)


class AirflowApi:
    """A logged-in client; logs in again, by the user's password in a JSON file, when its token is no longer good."""

    def __init__(self, address: str, password_file: Path) -> None:
        self.address, self._password_file = address, password_file
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc is for loopback
        self._session.mount(f"{address}/api/", HTTPAdapter(max_retries=_RETRY))

    def is_healthy(self) -> bool:
        """Say whether the Execution API, which the tasks talk to, answers."""
        try:
            return self._session.get(f"{self.address}/execution/health", timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def has_dag(self, dag_id: str, since: float = 0) -> bool:
        """Say whether a DAG has been parsed after a moment (seconds since the epoch): an older form may still stand there."""
        answer = self.call("GET", f"dags/{dag_id}", missing_is_none=True)
        parsed = answer and answer["last_parsed_time"]
        return bool(parsed) and datetime.fromisoformat(parsed).timestamp() >= since

    def import_errors(self) -> list[str]:
        """Return the DAG files that could not be parsed, each with its error."""
        answer = self.call("GET", "importErrors")
        return [f"{entry['filename']}: {entry['stack_trace']}" for entry in answer["import_errors"]]

    def set_pool(self, name: str, slots: int) -> None:
        """Make a pool, or leave the one that is there."""
        if self.call("GET", f"pools/{name}", missing_is_none=True) is None:
            self.call("POST", "pools", {"name": name, "slots": slots, "description": "Spark jobs at a time"})

    def start_run(self, dag_id: str, partition_key: str | None, conf: dict[str, Any]) -> str:
        """Start a run, of a partition when a key is given, and return its id."""
        body = {"logical_date": None, "conf": conf} | ({"partition_key": partition_key} if partition_key else {})
        run_id: str = self.call("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]
        return run_id

    def runs(self, dag_id: str, states: tuple[str, ...] = (), since: str = "") -> list[dict[str, Any]]:
        """Return all runs of a DAG, or those in some states, or those that came at or after a moment (ISO 8601)."""
        filters = {"state": list(states)} | ({"run_after_gte": since} if since else {})
        return self._pages(f"dags/{dag_id}/dagRuns", filters, "dag_runs")

    def fail_run(self, dag_id: str, run_id: str) -> None:
        """End an active run, and its tasks, as failed."""
        self.call("PATCH", f"dags/{dag_id}/dagRuns/{quote(run_id)}", {"state": "failed"})

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run."""
        return self._pages(f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances", {}, "task_instances")

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned; None when there is nothing (yet)."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value?deserialize=true"
        answer = self.call("GET", path, missing_is_none=True)
        value = answer["value"] if answer else None
        return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value

    def task_log(self, instance: dict[str, Any]) -> list[dict[str, Any] | str]:
        """Return the log of a task instance's last try: structured events, or plain lines."""
        path = (
            f"dags/{instance['dag_id']}/dagRuns/{instance['dag_run_id']}/taskInstances/{instance['task_id']}"
            f"/logs/{instance['try_number']}?map_index={instance['map_index']}&full_content=true"
        )
        answer = self.call("GET", path, missing_is_none=True)
        return list(answer["content"]) if answer else []

    def _pages(self, path: str, filters: dict[str, Any], name: str) -> list[dict[str, Any]]:
        # By GET: Airflow's listings by POST write a row of its audit log at each look.
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, query=filters | {"offset": len(found), "limit": _PAGE})[name]
            found += page
            if len(page) < _PAGE:
                return found

    def call(
        self, method: str, path: str, body: Any = None, missing_is_none: bool = False, query: dict[str, Any] | None = None
    ) -> Any:
        """Call the API below /api/v2; raise SandboxError when it refuses or does not answer."""
        ask = partial(self._session.request, method, f"{self.address}/api/v2/{path}", json=body, params=query, timeout=180)
        try:
            answer = ask()
            if answer.status_code == 401:
                self._log_in()
                answer = ask()
        except requests.RequestException as error:
            raise SandboxError(f"Airflow's API at {self.address} does not answer: see `make status`") from error
        if answer.status_code == 404 and missing_is_none:
            return None
        if not answer.ok:
            raise SandboxError(f"Airflow refused {method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def _log_in(self) -> None:
        log_in = {"username": USER, "password": json.loads(self._password_file.read_text())[USER]}
        answer = self._session.post(f"{self.address}/auth/token", json=log_in, timeout=60)
        if not answer.ok:
            answered = f"{answer.status_code} {answer.text[:200]}: `make stop`, then again"
            raise SandboxError(f"Airflow refuses the password in {self._password_file}: {answered}")
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
