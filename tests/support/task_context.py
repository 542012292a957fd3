"""A task's context as far as a launcher's operator uses it."""

from dataclasses import asdict
from typing import Any

from airflow.sdk import BaseOperator
from orchard.tables.reports import PlannedJobs


class TaskContext(dict[str, Any]):
    """A context whose XCom holds a plan, and what the task pushes; it is its own task instance."""

    def __init__(self, planned: PlannedJobs, task: BaseOperator | None = None) -> None:
        super().__init__(ti=self, task=task)
        self.planned, self.pushed = planned, dict[str, Any]()

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return asdict(self.planned) if task_ids == "plan_batch" else self.pushed[key]

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value
