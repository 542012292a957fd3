"""Publish what a run of a model's DAG made: a new model, rows, the promotion, and what the run did."""

from dataclasses import replace
from datetime import UTC, datetime

from orchard_jobs.contract.columns import MODEL_RUNS, Table
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.errors import SupersededError
from orchard_jobs.escaping import escaping_logger

from orchard.models.captured import record_captured
from orchard.models.kinds import KIND_OF_NAME, PCA, Kind
from orchard.models.model import model_file
from orchard.models.model_plan import ModelPlan
from orchard.models.recorded_evaluations import record_evaluations
from orchard.models.registry import PromotionRequest, append_promotion
from orchard.models.state import considered_key
from orchard.tables.batch_versions import version_key
from orchard.tables.commit_rule import Change, Tables

log = escaping_logger(__name__)


def publish_model(tables: Tables, plan: ModelPlan, report: JobReport, run_id: str) -> None:
    """Publish what a job made: a new model's row, all models' rows of all batches in one commit, the promotion, the run.

    A batch that got a newer version meanwhile is not committed: the next run makes its rows. A retry commits the rest.
    A classifier that is worse than the current one becomes a row of its table, and is not promoted.

    Raises:
        SupersededError: another model was promoted meanwhile.
        JobError: a staged file is gone or damaged.
    """
    projection = plan.projection
    assert projection is not None, "a plan without a projection has nothing to publish"
    kind = KIND_OF_NAME[projection.kind]
    if plan.action == "fit":
        assert plan.model_id is not None, "a fit makes a model"
        publish_file(tables, plan.model_id, kind)
        plan = _judged(plan, report)
    record_captured(tables, report.captured)
    record_evaluations(tables, report.evaluations)
    _publish_rows(tables, kind.rows, projection, report)
    if plan.action == "fit":
        _promote(tables, projection.backbone, plan, kind)
    record_model_run(tables, projection.backbone, plan, run_id, kind)


def _publish_rows(tables: Tables, table: Table, projection: ProjectionPlan, report: JobReport) -> None:
    changes = [
        Change(version_key(model.model_id, batch.batch_id), batch.number, batch.manifest_digest, staged.partition, staged.files)
        for (model, batch), staged in zip(projection.pairs, report.of_table(table.name), strict=True)
    ]
    tables.commit(table, changes)


def _judged(plan: ModelPlan, report: JobReport) -> ModelPlan:
    """Return the plan, or one that keeps the current model where the new one does worse on rows that neither has seen."""
    fit = plan.projection.fit if plan.projection else None
    if fit is None or plan.judged is None or plan.considered_if_kept is None:
        return plan
    rows, new, current = (report.counts[name] for name in ("compared", "compared_right", "compared_right_before"))
    if new >= current - fit.margin * rows:
        return plan
    reason = f"{plan.model_id} is not promoted: it gets {new} of {rows} images right, the current model {current}; {plan.reason}"
    log.warning("%s", reason)
    considered, kept = plan.considered_if_kept, plan.judged.model_id
    return replace(plan, action="candidate", reason=reason, considered=considered, model_id=kept)


def publish_file(tables: Tables, model_id: str, kind: Kind) -> None:
    """Add a model's file to the table of its kind, once and for all."""
    change = Change(f"model/{model_id}", 1, digest_of(model_id), (), (model_file(tables.warehouse, model_id, kind),))
    tables.commit(kind.models, [change], "append")


def record_model_run(tables: Tables, backbone: str, plan: ModelPlan, run_id: str, kind: Kind = PCA) -> None:
    """Append what a run of a kind's DAG did and why, once for each run, and that all this was considered."""
    row = {
        "run_id": run_id,
        "backbone": backbone,
        "model_id": plan.model_id,
        "action": plan.action,
        "reason": plan.reason,
        "gain": plan.gain,
        "considered": plan.considered,
        "batches_projected": len({batch.batch_id for _, batch in plan.projection.pairs}) if plan.projection else 0,
        "published_at": datetime.now(UTC),
        "kind": kind.name,
    }
    key = f"model_run/{run_id}/{plan.considered}"
    row_change = Change(key, 1, plan.considered, (), (tables.stage(MODEL_RUNS, [row]),))
    tables.commit(MODEL_RUNS, [row_change, Change(considered_key(plan.considered), 1, plan.considered)], "append")


def _promote(tables: Tables, backbone: str, plan: ModelPlan, kind: Kind) -> None:
    assert plan.model_id is not None, "only a fitted model is promoted"
    request = PromotionRequest(backbone, plan.model_id, plan.judged, plan.reason, plan.gain, plan.distance, kind=kind)
    if not append_promotion(tables, request):
        raise SupersededError(f"another model than {plan.model_id} was promoted meanwhile; its promotion is kept")
