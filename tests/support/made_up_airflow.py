"""An Airflow whose runs go from state to state with each look."""

from typing import Any


def instance(task: str, state: str | None, run_id: str = "r", end: str | None = None) -> dict[str, Any]:
    return {"task_id": task, "state": state, "dag_run_id": run_id, "end_date": end}


class MadeUpAirflow:
    """Runs that go from state to state with each look."""

    def __init__(self, *states: str, has_model: bool = True) -> None:
        self.states = list(states)
        self.started: list[tuple[str, str | None, dict[str, Any]]] = []
        self.arrived: list[dict[str, Any]] = []
        self.has_model = has_model

    def start_run(self, dag_id: str, key: str | None, conf: dict[str, Any]) -> str:
        self.started.append((dag_id, key, conf))
        return f"{dag_id}-{len(self.started)}"

    def has_dag(self, dag_id: str) -> bool:
        return self.has_model

    def runs(self, dag_id: str, states: tuple[str, ...] = (), since: str = "") -> list[dict[str, Any]]:
        if dag_id == "image_batches" and not states:
            self.states = self.states[1:] or self.states
        ends = {"duration": 1.5, "end_date": "2026-01-31T00:00:00Z", "run_after": "2026-01-30T00:00:00Z"}
        found = [
            {"dag_id": dag, "dag_run_id": f"{dag}-{n}", "partition_key": key, "conf": conf, "state": self.states[0]} | ends
            for n, (dag, key, conf) in enumerate(self.started, 1)
            if dag == dag_id
        ]
        found += [ends | run for run in self.arrived if run["dag_id"] == dag_id and run["run_after"] >= since]
        return [run for run in found if not states or run["state"] in states]

    def arrive(self, batch: str, state: str, run_after: str, **tasks: str) -> None:
        run_id = f"arrived-{len(self.arrived)}"
        self.arrived.append(
            {"dag_id": "image_batches_on_arrival", "dag_run_id": run_id, "partition_key": batch, "state": state}
            | {"run_after": run_after, "end_date": run_after, "tasks": tasks}
        )

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        for run in self.arrived:
            if run["dag_run_id"] == run_id:
                return [instance(task, state, run_id) for task, state in run["tasks"].items()]
        return [instance("featurize", "failed" if self.states[0] == "failed" else "running", run_id)]

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        return {"input_digest": "ab", "backbone": "b"}

    def task_log(self, failed: dict[str, Any]) -> list[Any]:
        return [{"event": "the end", "error_detail": [{"exc_type": "E", "exc_value": "why"}]}]
