"""Names that running deployments hold: a run that an earlier release deferred resumes by them, and settings name some."""

import ast
import inspect
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger
from orchard.launchers.databricks import SubmitDatabricksRun
from orchard.launchers.emr import AddEmrStep, EmrStepTrigger
from orchard.launchers.emr_serverless import StartEmrServerlessJob
from orchard.workflow import notify, sensors
from orchard.workflow.sensors import WaitForUploads

# What the first release stores of a deferred task: the trigger's class path and its arguments.
DEFERRED: dict[str, dict[str, Any]] = {
    "orchard.sensors.UploadsTrigger": {
        "bucket": "b",
        "prefix": "p/",
        "aws_conn_id": "aws_default",
        "quiet_seconds": 1.0,
        "poll_seconds": 1.0,
        "wait_until": 1.0,
    },
    "orchard.sensors.RunEndTrigger": {"dag_id": "image_batches", "run_id": "r", "poll_seconds": 1.0},
    "orchard.launchers.emr.EmrStepTrigger": {
        "job_flow_id": "j-1",
        "step_ids": ["s-1"],
        "waiter_delay": 1,
        "waiter_max_attempts": 1,
        "aws_conn_id": "aws_default",
        "is_own_cluster": True,
    },
}
SHIMS = ("orchard.sensors", "orchard.notify", "orchard.preload")


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("path", DEFERRED)
def test_a_deferred_trigger_is_made_again_and_keeps_its_class_path(path: str) -> None:
    trigger: BaseTrigger = named(path)(**DEFERRED[path])
    stored, arguments = trigger.serialize()
    assert stored == path
    assert DEFERRED[path].items() <= arguments.items()


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        (WaitForUploads, "resume"),
        (WaitForUploads, "resume_turn"),
        (AddEmrStep, "execute_complete"),
        (StartEmrServerlessJob, "execute_complete"),
        (SubmitDatabricksRun, "execute_complete"),
    ],
)
def test_a_deferred_task_resumes_by_its_method(operator: type, method: str) -> None:
    assert method in vars(operator), "the stock operator's would leave out what ours does"
    inspect.signature(getattr(operator, method)).bind(None, {}, event={})


def test_the_old_paths_lead_to_the_classes_themselves() -> None:
    assert named("orchard.sensors.UploadsTrigger") is sensors.UploadsTrigger
    assert named("orchard.sensors.RunEndTrigger") is sensors.RunEndTrigger
    assert named("orchard.notify.LogNotifier") is notify.LogNotifier
    assert EmrStepTrigger.__module__ == "orchard.launchers.emr"


@pytest.mark.parametrize("name", SHIMS)
def test_a_shim_only_re_exports(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    docstring, imported, exported = ast.parse(Path(spec.origin).read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(imported, ast.ImportFrom)
    assert str(imported.module).startswith("orchard.workflow")
    assert ast.unparse(exported) == f"__all__ = {[alias.name for alias in imported.names]}"
