"""What a run of pca_model decided: frozen as a file that is named by its own digest, so that XCom carries a name alone."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchard_jobs.contract.digests import canonical_json, digest_of
from orchard_jobs.contract.jobs import ProjectionPlan
from orchard_jobs.contract.layout import model_plan_path, projection_plan_path
from orchard_jobs.storage import Warehouse

from orchard.models.model import Promotion
from orchard.tables.reports import parsed


@dataclass(frozen=True)
class ModelPlan:
    """What one run of pca_model is to do.

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
    """

    action: str
    reason: str
    considered: str
    model_id: str | None = None
    gain: float | None = None
    distance: float | None = None
    judged: Promotion | None = None
    projection: ProjectionPlan | None = None


def write_model_plan(warehouse: Warehouse, plan: ModelPlan) -> str:
    """Write a plan that has a projection, unless it is there; return its digest. The projection plan has a file of its own."""
    assert plan.projection is not None, "a plan without a projection is over when it is made"
    fields = {**asdict(replace(plan, projection=None)), "projection": plan.projection.digest}
    digest = digest_of(fields)
    warehouse.create(model_plan_path(digest), canonical_json(fields).encode())
    return digest


def read_model_plan(warehouse: Warehouse, digest: str) -> ModelPlan:
    """Return a plan by its digest; JobError when its file, or its projection's, is gone or damaged."""
    path = model_plan_path(digest)
    fields = parsed(warehouse, path, warehouse.read(path), json.loads)
    return model_plan_of(fields, read_projection(warehouse, fields["projection"]))


def model_plan_of(fields: dict[str, Any], projection: ProjectionPlan) -> ModelPlan:
    """Return the plan of a decision's fields and its projection."""
    judged = Promotion(**fields["judged"]) if fields["judged"] else None
    return ModelPlan(**{**fields, "judged": judged, "projection": projection})


def read_projection(warehouse: Warehouse, digest: str) -> ProjectionPlan:
    """Return a projection plan by its digest; JobError when its file is gone or damaged."""
    path = projection_plan_path(digest)
    return parsed(warehouse, path, warehouse.read(path), ProjectionPlan.from_json)
