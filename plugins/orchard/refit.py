"""The life of a backbone's PCA model: merge the moments of all published batches, decide, fit, publish, promote."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from orchard_jobs.contract.columns import MODEL_RUNS, MODELS, MOMENTS, PCA_FEATURES, PROMOTIONS
from orchard_jobs.contract.digests import digest_of, work_digest
from orchard_jobs.contract.jobs import BatchVersion, JobReport, ProjectionPlan
from orchard_jobs.contract.layout import plan_path
from orchard_jobs.errors import SupersededError
from orchard_jobs.pca.fit import Spectrum
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.storage import Warehouse

from orchard.models import (
    Model,
    Promotion,
    create_model,
    current_promotion,
    model_file,
    model_id_of,
    read_model,
    sources_of,
)
from orchard.publish import record_captured
from orchard.reports import is_sound
from orchard.settings import Settings
from orchard.tables import Change, Standing, Tables
from orchard.versions import key_of, readable_versions

_ROWS_PER_CHUNK = 4096


@dataclass(frozen=True)
class ModelPlan:
    """What one run of pca_model is to do.

    Attributes:
        action: `nothing`; `none` (no model is possible yet); `keep` the current model; `fit` a new one.
        reason: why, in words for the log and for `model_runs`.
        considered: digest of the batch versions, the model and the settings that were judged.
        gain: share of the merged variance that a refit would gain; None where there is no model.
        judged: the promotion that the decision was made on; None when there was none. A new model is promoted right after
            it or not at all.
        projection: the Spark job's work; None when there is none.
    """

    action: str
    reason: str
    considered: str
    gain: float | None = None
    judged: Promotion | None = None
    projection: ProjectionPlan | None = None


def pending_work(tables: Tables, settings: Settings) -> str | None:
    """Return what pca_model has to do, in words, or None when it has nothing to do. Reads no moments."""
    backbone = settings.backbone.id
    versions = readable_versions(tables, backbone)
    if not versions:
        return None
    promotion = current_promotion(tables, backbone)
    lacking = _lacking(tables, promotion.model_id, versions) if promotion else ()
    if lacking:
        return f"the current model lacks {len(lacking)} of {len(versions)} batches"
    if not _was_considered(tables, _considered(settings, versions, promotion)):
        return f"the {len(versions)} published batches were not yet judged together"
    return None


def plan_model(tables: Tables, settings: Settings) -> ModelPlan:
    """Decide what pca_model does now, and freeze its Spark job's work.

    Three ends: nothing is missing; the current model lacks batches (or holds them in an older version) and keeps enough
    variance; or there is no model, k changed, or a refit gains more than the threshold: a fit on the merge of all batches.

    Returns:
        The plan; its projection plan and a new model's file lie in the warehouse when it is returned.
    """
    backbone = settings.backbone.id
    versions = readable_versions(tables, backbone)
    promotion = current_promotion(tables, backbone)
    considered = _considered(settings, versions, promotion)
    if pending_work(tables, settings) is None:
        reason = f"all {len(versions)} published batches are covered" if versions else "no batch is published yet"
        return ModelPlan("nothing", reason, considered)
    model = read_model(tables.warehouse, promotion.model_id) if promotion else None
    spectrum = Spectrum.of(_merged_moments(tables, backbone, versions, model))
    if model is not None and promotion is not None:
        gain = spectrum.gain(model.basis.components, settings.components)
        why = _refit_reason(settings, model, gain)
        if why is None:
            return _keep(tables, model, _lacking(tables, model.model_id, versions), considered, gain)
    else:
        gain, why = None, "there is no model yet"
    basis = spectrum.fit(settings.components)
    if basis is None:
        return ModelPlan("none", f"{spectrum.moments.n} published images have no variance: one, or all alike", considered)
    sources = sources_of(versions)
    model_id = model_id_of(backbone, settings.components, sources)
    fitted = create_model(tables.warehouse, Model(model_id, backbone, basis, spectrum.moments, sources))
    projection = ProjectionPlan(backbone, fitted.reference, versions)
    after = Promotion(0, model_id)
    return _frozen(tables, ModelPlan("fit", why, _considered(settings, versions, after), gain, promotion, projection))


def publish_model(tables: Tables, plan: ModelPlan, report: JobReport, run_id: str) -> None:
    """Publish a projection: the model's row, its rows of all batches in one commit, the promotion, the run.

    A batch that got a newer version meanwhile is left out: the next run projects it. A retry commits what is left.

    Raises:
        SupersededError: another model was promoted meanwhile.
        JobError: a staged file is gone or damaged.
    """
    projection = plan.projection
    assert projection is not None, "a plan without a projection has nothing to publish"
    model_id, backbone = projection.model.model_id, projection.backbone
    if plan.action == "fit":
        file = model_file(tables.warehouse, model_id)
        tables.commit(MODELS, [Change(f"model/{model_id}", 1, digest_of(model_id), (), (file,))], "append")
    changes = [
        Change(key_of(model_id, batch.batch_id), batch.number, batch.manifest_digest, staged.partition, staged.files)
        for batch, staged in zip(projection.batches, report.of_table(PCA_FEATURES.name), strict=True)
    ]
    tables.commit(PCA_FEATURES, changes)
    record_captured(tables, model_id, {batch.batch_id: batch.number for batch in projection.batches}, report.captured)
    if plan.action == "fit":
        _promote(tables, backbone, model_id, plan)
    record_model_run(tables, backbone, plan, run_id)


def record_model_run(tables: Tables, backbone: str, plan: ModelPlan, run_id: str) -> None:
    """Append what a run of pca_model did and why, once a run."""
    promotion = current_promotion(tables, backbone)
    row = {
        "run_id": run_id,
        "backbone": backbone,
        "model_id": promotion.model_id if promotion else None,
        "action": plan.action,
        "reason": plan.reason,
        "gain": plan.gain,
        "considered": plan.considered,
        "batches_projected": len(plan.projection.batches) if plan.projection else 0,
        "published_at": datetime.now(UTC),
    }
    change = Change(f"model_run/{run_id}/{plan.considered}", 1, plan.considered, (), (tables.stage(MODEL_RUNS, [row]),))
    tables.commit(MODEL_RUNS, [change], "append")


def _considered(settings: Settings, versions: Iterable[BatchVersion], promotion: Promotion | None) -> str:
    model_id = promotion.model_id if promotion else None
    return digest_of([list(map(list, sources_of(versions))), model_id, settings.components, settings.refit_gain])


def _was_considered(tables: Tables, considered: str) -> bool:
    return any(row["considered"] == considered for row in tables.rows(MODEL_RUNS, ("considered",)))


def _lacking(tables: Tables, model_id: str, versions: Iterable[BatchVersion]) -> tuple[BatchVersion, ...]:
    """Return the versions that a model has no rows of, or rows of an older version."""
    snapshot = tables.load(PCA_FEATURES)

    def is_behind(version: BatchVersion) -> bool:
        change = Change(key_of(model_id, version.batch_id), version.number, version.manifest_digest)
        return change.standing(snapshot) is Standing.BEHIND

    return tuple(filter(is_behind, versions))


def _merged_moments(tables: Tables, backbone: str, versions: Sequence[BatchVersion], model: Model | None) -> Moments:
    """Merge onto the current model's moments when all that it was merged from still stands; otherwise from the start."""
    held = set(model.sources) if model else set()
    if model is None or not held <= set(sources_of(versions)):
        return merge_all(_moments_of(tables, backbone, version) for version in versions)
    new = (version for version in versions if (version.batch_id, version.manifest_digest) not in held)
    return merge_all([model.moments, merge_all(_moments_of(tables, backbone, version) for version in new)])


def _moments_of(tables: Tables, backbone: str, version: BatchVersion) -> Moments:
    """Return a batch version's moments: the cached ones where they are of this very version, else from its features."""
    for row in tables.rows(MOMENTS, backbone=backbone, batch_id=version.batch_id):
        if row["manifest_digest"] == version.manifest_digest:
            return Moments.unpacked(row["n"], np.array(row["mean"]), np.array(row["second_moment"]))
    return Moments.of_chunks(_feature_chunks(tables.warehouse, version))


def _feature_chunks(warehouse: Warehouse, version: BatchVersion) -> Iterator[Any]:
    for path in version.files:
        with pq.ParquetFile(warehouse.open(path)) as file:
            for rows in file.iter_batches(_ROWS_PER_CHUNK, columns=["features"]):
                yield rows.column(0).flatten().to_numpy().reshape(rows.num_rows, -1)


def _refit_reason(settings: Settings, model: Model, gain: float) -> str | None:
    if model_id_of(model.backbone, settings.components, model.sources) != model.model_id:
        return f"the current model was not fitted with k = {settings.components}"
    if gain > settings.refit_gain:
        return f"a refit gains {gain:.4f} of the variance, more than {settings.refit_gain}"
    return None


def _keep(tables: Tables, model: Model, lacking: tuple[BatchVersion, ...], considered: str, gain: float) -> ModelPlan:
    reason = f"a refit would gain {gain:.4f} of the variance"
    if not lacking:
        return ModelPlan("keep", reason, considered, gain)
    projection = ProjectionPlan(model.backbone, model.reference, lacking)
    return _frozen(tables, ModelPlan("keep", reason, considered, gain, projection=projection))


def _frozen(tables: Tables, plan: ModelPlan) -> ModelPlan:
    projection = plan.projection
    assert projection is not None, "only a plan with a projection is frozen"
    while not is_sound(tables.warehouse, work_digest(projection.digest, projection.backbone, "project")):
        projection = replace(projection, attempt=projection.attempt + 1)
    tables.warehouse.create(plan_path(projection.digest), projection.to_json().encode())
    return replace(plan, projection=projection)


def _promote(tables: Tables, backbone: str, model_id: str, plan: ModelPlan) -> None:
    """Append the promotion that makes a model the current one, right after the one that was judged; it names that one's model.

    Its number is the plan's, so an old run that is run again finds its promotion done or superseded and changes nothing.
    """
    sequence = plan.judged.sequence + 1 if plan.judged else 1
    row = {
        "backbone": backbone,
        "sequence": sequence,
        "model_id": model_id,
        "predecessor": plan.judged.model_id if plan.judged else None,
        "reason": plan.reason,
        "promoted_at": datetime.now(UTC),
    }
    change = Change(f"promotions/{backbone}", sequence, digest_of(model_id), (), (tables.stage(PROMOTIONS, [row]),))
    if tables.commit(PROMOTIONS, [change], "append").standings[0] is Standing.SUPERSEDED:
        raise SupersededError(f"another model than {model_id} was promoted meanwhile: its promotion stands")
