"""The flow of one batch, from its uploads to its published rows, and that of one kind of model."""

from typing import Any

from orchard.launchers import launcher_for
from orchard.launchers.request import JobRequest
from orchard.models.kinds import PCA, Kind
from orchard.settings import Settings
from orchard.workflow.context import AFTER_SKIPS
from orchard.workflow.sensors import WaitForUploads
from orchard.workflow.tasks.batch import plan_batch, publish_batch, record_lineage, show_batch, validate_batch
from orchard.workflow.tasks.pca import plan_model, publish_model, show_models, validate_model

# What a task is going to return. Airflow hands the value itself to the task that takes it.
TaskValue = Any


def batch_flow(settings: Settings, *, is_announced: bool) -> None:
    """Put the tasks of a batch's run into the DAG that is being defined.

    Args:
        settings: the settings.
        is_announced: the DAG's runs are started by uploads, not by the clock or by hand.
    """
    launcher = launcher_for(settings)

    waited = WaitForUploads(task_id="wait_for_uploads", settings=settings, is_announced=is_announced)
    planned: TaskValue = plan_batch()
    featurized = launcher.operator(JobRequest("featurize", plan_task="plan_batch"))
    reduced = launcher.operator(JobRequest("reduce", plan_task="plan_batch", trigger_rule=AFTER_SKIPS))
    validated: TaskValue = validate_batch(planned)
    published: TaskValue = publish_batch(planned, validated)
    recorded = record_lineage(planned, published)
    shown = show_batch(planned)

    waited >> planned >> featurized >> reduced >> validated >> published >> recorded
    planned >> reduced
    # Also what the audit refuses is shown; the run still fails, because `record_lineage` then ends it.
    [planned, published] >> shown


def model_flow(settings: Settings, kind: Kind) -> None:
    """Put the tasks of a run of a kind of model into the DAG that is being defined.

    Args:
        settings: the settings.
        kind: the kind; its job's stage is the name of the job's task.
    """
    planned: TaskValue = plan_model(kind.name)
    made = launcher_for(settings).operator(JobRequest(kind.stage, plan_task="plan_model"))
    validated: TaskValue = validate_model(planned)
    published = publish_model(planned, validated)

    planned >> made >> validated >> published
    if kind is PCA:  # the only kind that the pages show
        published >> show_models()
