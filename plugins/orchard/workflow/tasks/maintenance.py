"""The tasks of clean_warehouse."""

from datetime import UTC, datetime

from airflow.sdk import task
from orchard_jobs.escaping import escaping_logger

from orchard.maintenance.clean import clean_on_schedule
from orchard.maintenance.verify import verify_on_schedule
from orchard.reporting.view_refresh import refresh_view
from orchard.workflow.context import settings, tables
from orchard.workflow.error_mapping import airflow_value

log = escaping_logger(__name__)


@task
def clean_warehouse() -> None:
    """Remove unused files that are older than the retention."""
    for total in airflow_value(clean_on_schedule(tables(), settings(), datetime.now(UTC))):
        log.info("removed kind=%s files=%s bytes=%s", total.kind, total.files, total.size_bytes)


@task
def verify_warehouse() -> None:
    """Read every file that a table names; fails when one is lost or damaged, and names it."""
    log.info("nothing is lost or damaged tables=%s", airflow_value(verify_on_schedule(tables())))


@task(task_id="refresh_view")
def rebuild_view() -> None:
    """Build the pages' view anew, so that it shows whatever no run told it."""
    tables().create_all()
    refresh_view(tables(), settings(), datetime.now(UTC), is_anew=True)
