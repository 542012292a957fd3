"""Databricks's Jobs API as far as the launcher's hook asks it."""

from typing import Any

from airflow.providers.databricks.exceptions import DatabricksApiError


class Workspace:
    """Databricks as far as the hook asks it: runs by token, each in a state that a test sets."""

    def __init__(self) -> None:
        self.states, self.of_token = dict[int, dict[str, str]](), dict[str, int]()
        self.submitted, self.cancelled = list[dict[str, Any]](), list[int]()

    def call(self, endpoint: tuple[str, str], json: dict[str, Any]) -> dict[str, Any]:
        """Answer a call as `DatabricksHook._do_api_call` does."""
        answer: dict[str, Any] = getattr(self, endpoint[1].rpartition("/")[2].replace("-", "_"))(json)
        return answer

    def submit(self, json: dict[str, Any]) -> dict[str, Any]:
        self.submitted.append(json)
        run = self.of_token.setdefault(json["idempotency_token"], len(self.of_token) + 1)
        self.states.setdefault(run, {"life_cycle_state": "RUNNING", "state_message": ""})
        return {"run_id": run}

    def get(self, json: dict[str, Any]) -> dict[str, Any]:
        if json["run_id"] not in self.states:
            raise DatabricksApiError(f"Run {json['run_id']} does not exist.", http_status_code=400)
        state = self.states[json["run_id"]]
        task = {"run_id": 10 * json["run_id"], "task_key": "featurize", "attempt_number": 0, "state": state}
        return {"job_id": 7, "run_page_url": "http://w/run", "state": state, "tasks": [task]}

    def get_output(self, json: dict[str, Any]) -> dict[str, Any]:
        return {"error": f"JobError: no memory in {json['run_id']}", "error_trace": "Traceback\n  in featurize", "logs": "began"}

    def cancel(self, json: dict[str, Any]) -> dict[str, Any]:
        self.cancelled.append(json["run_id"])
        self.states[json["run_id"]] = {"life_cycle_state": "TERMINATED", "result_state": "CANCELED", "state_message": "cancelled"}
        return {}

    def end(self, run: int, result: str) -> None:
        self.states[run] = {"life_cycle_state": "TERMINATED", "result_state": result, "state_message": f"message of {run}"}
