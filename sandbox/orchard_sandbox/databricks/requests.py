"""Reads and checks requests to Databricks: what Databricks or this stand-in does not know is refused, never ignored."""

import json
import re
from collections.abc import Collection
from typing import Any

from databricks.sdk.service import jobs as api
from werkzeug.wrappers import Request

_TASK = (
    *("task_key", "python_wheel_task", "environment_key", "new_cluster", "existing_cluster_id", "libraries", "timeout_seconds"),
    *("max_retries", "min_retry_interval_millis", "retry_on_timeout", "disable_auto_optimization", "description", "run_if"),
)
_RUN = ("tasks", "run_name", "timeout_seconds", "idempotency_token", "environments", "queue")


class ApiError(Exception):
    """The API's refusal."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def invalid(message: str) -> ApiError:
    """Return the API's INVALID_PARAMETER_VALUE."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def given_of(request: Request) -> dict[str, Any]:
    """Return the parameters of a call; those of a GET come in the query or, from Airflow's triggers, in a JSON body."""
    body = request.get_data()
    try:
        found = json.loads(body) if body else {}
    except ValueError as error:
        raise ApiError(400, "MALFORMED_REQUEST", f"The body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "MALFORMED_REQUEST", "The body is not a JSON object")
    return {**request.args.to_dict(), **found}


def without_empty(value: Any) -> Any:
    """Return JSON without its empty lists and objects, which the SDK leaves out."""
    if isinstance(value, dict):
        return {name: without_empty(one) for name, one in value.items() if one not in ([], {})}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


def refuse_unknown(given: Any, known: Collection[str], what: str = "the request") -> None:
    """Raise ApiError for a field that this stand-in does not implement."""
    unknown = sorted(given.keys() - set(known)) if isinstance(given, dict) else given
    if unknown or not isinstance(given, dict):
        raise invalid(f"{what} holds {unknown}, which this stand-in does not know")


def check_request(given: dict[str, Any]) -> None:
    """Raise ApiError for a submission that Databricks or this stand-in refuses."""
    if len(str(given.get("idempotency_token") or "")) > 64:
        raise invalid("idempotency_token must have at most 64 characters.")
    refuse_unknown(given, _RUN)
    tasks, environments = given.get("tasks"), given.get("environments") or []
    if not isinstance(tasks, list) or len(tasks) != 1:
        raise invalid("this stand-in runs exactly one task")
    (task,) = tasks
    refuse_unknown(task, _TASK, "the task")
    # The SDK leaves out what it does not know; so what comes back unlike it went in holds a field that is none.
    shaped: list[tuple[Any, Any]] = [(api.SubmitTask, task), *((api.JobEnvironment, one) for one in environments)]
    for shape, one in shaped:
        if without_empty(shape.from_dict(one).as_dict()) != without_empty(one):
            raise invalid(f"there is a field that Databricks does not know in {json.dumps(one)}")
    _check_task(task, environments)


def _check_task(task: dict[str, Any], environments: list[Any]) -> None:
    wheel = task.get("python_wheel_task")
    if not wheel or not wheel.get("package_name") or not wheel.get("entry_point") or "named_parameters" in wheel:
        raise invalid("this stand-in runs a python_wheel_task with package_name, entry_point and parameters, and no other")
    where = [name for name in ("environment_key", "new_cluster", "existing_cluster_id") if name in task]
    if len(where) != 1:
        raise invalid(f"a task needs one of environment_key, new_cluster and existing_cluster_id, it has {where}")
    if where == ["environment_key"]:
        _check_serverless(task, environments)
    elif where == ["new_cluster"]:
        _check_cluster(task["new_cluster"])
    for library in task.get("libraries", []):
        if library.keys() not in ({"whl"}, {"pypi"}):
            raise invalid(f"the library {library} is none that this stand-in installs: whl and pypi are")


def _check_serverless(task: dict[str, Any], environments: list[Any]) -> None:
    if [one.get("environment_key") for one in environments].count(task["environment_key"]) != 1:
        raise invalid(f"The environment_key '{task['environment_key']}' is not in environments.")
    if "libraries" in task:
        raise invalid("Libraries field is not supported for serverless task, please specify libraries in environment.")
    for one in environments:
        spec = one.get("spec", {})
        has_version = spec.get("environment_version") or spec.get("client")
        if spec.keys() - {"environment_version", "client", "dependencies"} or not has_version:
            raise invalid(f"the environment {one} needs a spec with environment_version, and dependencies alone beside it")


def _check_cluster(cluster: dict[str, Any]) -> None:
    for name in ("spark_version", "node_type_id"):
        if not cluster.get(name):
            raise invalid(f"Missing required field: new_cluster.{name}")
    if ("num_workers" in cluster) == ("autoscale" in cluster):
        raise invalid("new_cluster needs one of num_workers and autoscale")
    if not re.fullmatch(r"\d+\.\d+\.x(-[a-z]+)*-scala2\.1[23]", cluster["spark_version"]):
        raise invalid(f"Invalid spark version {cluster['spark_version']}.")
