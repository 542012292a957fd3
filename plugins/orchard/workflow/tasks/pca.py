"""The tasks of pca_model and classifier_model."""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import get_current_context, task
from orchard_jobs.escaping import escaping_logger

from orchard.models import run
from orchard.models.kinds import KIND_OF_NAME, PCA
from orchard.models.model_plan import model_plan_of, read_projection, write_model_plan
from orchard.outcomes import Skipped
from orchard.reporting.view_refresh import refresh_view
from orchard.tables.reports import PlannedJobs
from orchard.workflow.context import AFTER_SKIPS, settings, tables
from orchard.workflow.error_mapping import airflow_value

log = escaping_logger(__name__)


@task
def plan_model(kind: str = PCA.name) -> dict[str, Any]:
    """Decide what there is to do: nothing, make what the current and the pinned models lack, or fit a new one."""
    context = get_current_context()
    if context["ti"].get_dr_count(dag_id=context["dag_run"].dag_id, states=["queued"]) > 0:
        return airflow_value(Skipped("a later run of this DAG is queued: it will see every batch that this one sees"))
    return asdict(airflow_value(run.plan(tables(), settings(), context["dag_run"].run_id, KIND_OF_NAME[kind])))


@task(task_id="validate", trigger_rule=AFTER_SKIPS)
def validate_model(planned: dict[str, Any]) -> str:
    """Audit the models and the rows that were made with them; fails closed."""
    return airflow_value(run.validate(tables(), PlannedJobs(**planned)))


@task(task_id="publish")
def publish_model(planned: dict[str, Any], verdict: str) -> None:
    """Commit the rows of all planned models and batches at once, then promote a new model."""
    context = get_current_context()
    log.info("publishing verdict=%s", verdict)
    jobs = _with_decision(PlannedJobs(**planned), context["ti"])
    airflow_value(run.publish(tables(), jobs, context["dag_run"].run_id))


@task(task_id="refresh_view")
def show_models() -> None:
    """Let the pages show the models and which of them is current."""
    refresh_view(tables(), settings(), datetime.now(UTC), has_new_models=True)


def _with_decision(planned: PlannedJobs, ti: Any) -> PlannedJobs:
    """Return a plan with its decision's file: an earlier release pushed the decision as an XCom of its own."""
    if planned.decision is not None:
        return planned
    warehouse = tables().warehouse
    decided = ti.xcom_pull(task_ids="plan_model", key="decided")
    plan = model_plan_of(decided, read_projection(warehouse, planned.input_digest))
    return replace(planned, decision=write_model_plan(warehouse, plan))
