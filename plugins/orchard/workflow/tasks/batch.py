"""The tasks of image_batches and image_batches_on_arrival."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from airflow.sdk import get_current_context, task
from orchard_jobs.contract.backbones import Backbone

from orchard.batch import run
from orchard.launchers import launcher_for
from orchard.reporting.view_refresh import refresh_view
from orchard.tables.reports import PlannedJobs
from orchard.workflow.assets import FEATURES, UPLOADS
from orchard.workflow.context import AFTER_SKIPS, AT_THE_END, landing_zone_of, settings, tables
from orchard.workflow.error_mapping import airflow_value
from orchard.workflow.lineage import emit_batch
from orchard.workflow.sensors import batch_lock_of


@task(inlets=[UPLOADS])
def plan_batch() -> dict[str, Any]:
    """List the run's batch, compare it with what is published, and freeze the difference as a manifest."""
    lock = batch_lock_of(get_current_context(), settings())
    planned = run.plan(tables(), settings(), lock, landing_zone_of(settings()), _prepare)
    # Without a decision the dict is as an earlier release reads it.
    return {name: value for name, value in asdict(airflow_value(planned)).items() if value is not None}


def _prepare(backbone: Backbone) -> None:
    launcher_for(settings()).prepare(backbone)


@task(task_id="validate", trigger_rule=AFTER_SKIPS)
def validate_batch(planned: dict[str, Any]) -> str:
    """Audit what the jobs staged for a batch; fails closed. Returns the verdict."""
    return airflow_value(run.validate(tables(), settings(), PlannedJobs(**planned)))


@task(task_id="publish", outlets=[FEATURES])
def publish_batch(planned: dict[str, Any], verdict: str, outlet_events: Any = None) -> dict[str, Any]:
    """Commit a validated batch version to the tables, `runs` last. Returns the Delta version of each table."""
    jobs, run_id = PlannedJobs(**planned), get_current_context()["dag_run"].run_id
    published = airflow_value(run.publish(tables(), settings(), jobs, verdict, run_id))
    outlet_events[FEATURES].extra = {"manifest_digest": jobs.input_digest, "version": published.number}
    return asdict(published)


@task
def record_lineage(planned: dict[str, Any], published: dict[str, Any]) -> None:
    """Emit the published version's OpenLineage event."""
    run_id = get_current_context()["dag_run"].run_id
    airflow_value(run.record(tables(), PlannedJobs(**planned), published, run_id, partial(emit_batch, settings())))


@task(task_id="refresh_view", trigger_rule=AT_THE_END)
def show_batch(planned: dict[str, Any]) -> None:
    """Let the pages show the batch: its new version, or what keeps the planned one from being published."""
    refresh_view(tables(), settings(), datetime.now(UTC), [PlannedJobs(**planned).input_digest])
