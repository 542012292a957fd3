"""What a run of a model's DAG decided: frozen as a file that is named by its own digest, so that XCom carries a name alone."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchard_jobs.contract.digests import canonical_json, digest_of, work_digest
from orchard_jobs.contract.jobs import Projection, ProjectionPlan
from orchard_jobs.contract.layout import ModelPlanPath, ProjectionPlanPath
from orchard_jobs.storage import Warehouse

from orchard.models.model import Promotion, model_reference
from orchard.models.state import Lacking, ModelState
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import parsed, take_up


@dataclass(frozen=True)
class ModelPlan:
    """What one run of a model's DAG is to do.

    Attributes:
        action: `idle` (there is nothing to decide, which `model_runs` does not record); `none` (no model is possible yet);
            `keep` the current model; `fit` a new one.
        reason: why, in words for the log and for `model_runs`.
        considered: digest of all that the decision was made on: batch versions, model, hold and settings.
        model_id: the current model after the run; None where there is none.
        gain: share of the merged variance that a refit would gain; None where there is no model, or it was not asked.
        distance: of a new model's subspace from the current one's; None where either is missing.
        judged: the promotion that the decision was made on; None when there was none. A new model is promoted right after
            it or not at all.
        projection: the Spark job's work; None when there is none.
        considered_if_kept: what was considered, should the current model be kept because the new one is worse; None where a
            new one is promoted in any case. It is then in no text and no digest, as in earlier releases.
    """

    action: str
    reason: str
    considered: str
    model_id: str | None = None
    gain: float | None = None
    distance: float | None = None
    judged: Promotion | None = None
    projection: ProjectionPlan | None = None
    considered_if_kept: str | None = None


def write_model_plan(warehouse: Warehouse, plan: ModelPlan) -> str:
    """Write a plan that has a projection, unless it is there; return its digest. The projection plan has a file of its own."""
    assert plan.projection is not None, "a plan without a projection is over when it is made"
    fields = {**asdict(replace(plan, projection=None)), "projection": plan.projection.digest}
    if plan.considered_if_kept is None:
        del fields["considered_if_kept"]
    digest = digest_of(fields)
    warehouse.create(str(ModelPlanPath(digest)), canonical_json(fields).encode())
    return digest


def read_model_plan(warehouse: Warehouse, digest: str) -> ModelPlan:
    """Return a plan by its digest; JobError when its file, or its projection's, is gone or damaged."""
    path = str(ModelPlanPath(digest))
    fields = parsed(warehouse, path, warehouse.read(path), json.loads)
    return model_plan_of(fields, read_projection(warehouse, fields["projection"]))


def model_plan_of(fields: dict[str, Any], projection: ProjectionPlan) -> ModelPlan:
    """Return the plan of a decision's fields and its projection."""
    judged = Promotion(**fields["judged"]) if fields["judged"] else None
    return ModelPlan(**{**fields, "judged": judged, "projection": projection})


def read_projection(warehouse: Warehouse, digest: str) -> ProjectionPlan:
    """Return a projection plan by its digest; JobError when its file is gone or damaged."""
    path = str(ProjectionPlanPath(digest))
    return parsed(warehouse, path, warehouse.read(path), ProjectionPlan.from_json)


def keep_current(tables: Tables, found: ModelState, reason: str, gain: float | None = None) -> ModelPlan:
    """Return the plan that keeps the current model and makes what it and the pinned models lack."""
    assert found.promotion is not None, "without a model there is none to keep"
    plan = ModelPlan("keep", reason, found.considered, found.promotion.model_id, gain)
    return freeze_projection(tables.warehouse, plan, projection_of(tables.warehouse, found, found.lacking))


def projection_of(warehouse: Warehouse, found: ModelState, lacking: Lacking) -> ProjectionPlan:
    """Return the work of making what fitted models lack; no projections when they lack nothing."""
    wanted = {model_id: batches for model_id, batches in lacking.items() if batches}
    projections = tuple(Projection(model_reference(warehouse, one, found.kind), batches) for one, batches in wanted.items())
    return ProjectionPlan(found.published.backbone, projections, kind=found.kind.name)


def freeze_projection(warehouse: Warehouse, plan: ModelPlan, projection: ProjectionPlan) -> ModelPlan:
    """Return the plan with its Spark job's work, frozen in the warehouse, where there is any."""
    if not projection.projections and projection.fit is None:
        return plan
    while not take_up(warehouse, work_digest(projection.digest, projection.backbone, projection.stage)):
        projection = replace(projection, attempt=projection.attempt + 1)
    warehouse.create(str(ProjectionPlanPath(projection.digest)), projection.to_json().encode())
    return replace(plan, projection=projection)
