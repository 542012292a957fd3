"""The use cases of one run of a model's DAG: find pending work, plan, validate, publish. Knows no Airflow."""

from orchard_jobs.contract.layout import ProjectionPlanPath
from orchard_jobs.escaping import escaping_logger

from orchard.models.audits import verdicts_on_classifiers, verdicts_on_pca
from orchard.models.kinds import CLASSIFIER, PCA, Kind
from orchard.models.model_plan import read_model_plan, read_projection, write_model_plan
from orchard.models.publish import publish_model, record_model_run
from orchard.models.refit import pending_works, plan_model
from orchard.outcomes import Done, Outcome, Skipped, use_case
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs

log = escaping_logger(__name__)


@use_case
def find_pending(tables: Tables, settings: Settings) -> Outcome[str]:
    """Return what the models' DAGs have to do, in words; skipped when they have nothing to do."""
    tables.create_all()
    pending = pending_works(tables, settings)
    if not pending:
        return Skipped("the current models cover every published batch")
    return Done("; ".join(f"{dag_id}: {work}" for dag_id, work in pending.items()))


@use_case
def plan(tables: Tables, settings: Settings, run_id: str, kind: Kind = PCA) -> Outcome[PlannedJobs]:
    """Decide what the run does: nothing, make what the current and the pinned models lack, or fit a new model.

    Skipped when there is no work for a job; the decision is recorded even then.
    """
    tables.create_all()
    decided = plan_model(tables, settings, kind)
    log.info("model action=%s gain=%s reason=%s", decided.action, decided.gain, decided.reason)
    if decided.projection is None:
        if decided.action != "idle":
            record_model_run(tables, settings.backbone.id, decided, run_id, kind)
        return Skipped(f"nothing to project: {decided.reason}")
    digest, decision = decided.projection.digest, write_model_plan(tables.warehouse, decided)
    uri = tables.warehouse.uri_of(str(ProjectionPlanPath(digest)))
    return Done(PlannedJobs(uri, digest, decided.projection.backbone, (kind.stage,), decision))


@use_case
def validate(tables: Tables, planned: PlannedJobs) -> Outcome[str]:
    """Audit the models and the rows that were projected with them; fails closed. The value is the verdict in words.

    Raises:
        JobError: a report or a plan is gone or damaged.
    """
    projection = read_projection(tables.warehouse, planned.input_digest)
    report = planned.required_report(tables.warehouse, projection.stage)
    verdicts = verdicts_on_classifiers if projection.kind == CLASSIFIER.name else verdicts_on_pca
    for verdict in verdicts(tables.warehouse, projection, report):
        verdict.raise_if_failed()
    return Done("passed")


@use_case
def publish(tables: Tables, planned: PlannedJobs, run_id: str) -> Outcome[None]:
    """Commit the projected rows of all planned models and batches at once, then promote a new model.

    Skipped when another model was promoted meanwhile.

    Raises:
        JobError: a report, a plan or a staged file is gone or damaged.
    """
    assert planned.decision is not None, "a model's plan names its decision"
    decided = read_model_plan(tables.warehouse, planned.decision)
    assert decided.projection is not None, "a plan without a projection has nothing to publish"
    publish_model(tables, decided, planned.required_report(tables.warehouse, decided.projection.stage), run_id)
    return Done(None)
