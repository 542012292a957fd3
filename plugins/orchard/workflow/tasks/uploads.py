"""The tasks of image_arrivals and reconcile_uploads: which batches need a run."""

from typing import Any

from airflow.sdk import get_current_context, task
from orchard_jobs.escaping import escaping_logger

from orchard.batch import run as batch_run
from orchard.landing_zone.messages import uploaded_batches
from orchard.models import run as model_run
from orchard.workflow.assets import FEATURES, UPLOADS, upload_messages
from orchard.workflow.context import landing_zone_of, settings, tables
from orchard.workflow.error_mapping import airflow_value

log = escaping_logger(__name__)


@task(outlets=[UPLOADS])
def emit_batches(outlet_events: Any = None) -> None:
    """Read the messages that started this run, and emit an event of `uploads` for each batch that got an upload."""
    source = upload_messages(settings())
    events = get_current_context()["triggering_asset_events"].get(source, ()) if source else ()
    bodies = [message["Body"] for event in events for message in event.extra["payload"]["message_batch"]]
    batch_ids = airflow_value(uploaded_batches(bodies, settings().landing_zone))
    outlet_events[UPLOADS].add_partitions(list(batch_ids))


@task(outlets=[UPLOADS])
def find_differences(outlet_events: Any = None) -> None:
    """List the whole landing zone, and emit an event of `uploads` for each batch that differs from what is published."""
    batch_ids = airflow_value(batch_run.reconcile(tables(), settings(), landing_zone_of(settings())))
    outlet_events[UPLOADS].add_partitions(list(batch_ids))


@task(outlets=[FEATURES])
def wake_model(outlet_events: Any = None) -> None:
    """Start the models' DAGs by an event of `features` where one of them has something to do."""
    pending = airflow_value(model_run.find_pending(tables(), settings()))
    log.info("starting %s", pending)
    outlet_events[FEATURES].add_partitions(["reconciled"])
