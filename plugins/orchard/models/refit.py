"""The life of a backbone's PCA model: merge the moments of all published batches, decide, fit, publish, promote.

`registry` records what a user chose (hold, pin); `retention` removes expired rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchard_jobs.contract.columns import MODEL_RUNS, MODELS, PCA_FEATURES
from orchard_jobs.contract.digests import digest_of, work_digest
from orchard_jobs.contract.jobs import BatchVersion, JobReport, Projection, ProjectionPlan
from orchard_jobs.contract.layout import ModelPath, parse, projection_plan_path
from orchard_jobs.errors import SupersededError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.pca.fit import Spectrum, subspace_distance

from orchard.models.captured import record_captured
from orchard.models.merged_moments import merged_moments
from orchard.models.model import (
    Model,
    Promotion,
    create_model,
    current_promotion,
    model_file,
    model_id_of,
    model_reference,
    pinned_models,
    read_model,
    sources_of,
)
from orchard.models.model_plan import ModelPlan
from orchard.models.registry import PromotionRequest, append_promotion
from orchard.models.retention import Pair, remove_rows, rows_of_retired_batches
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions, version_key
from orchard.tables.commit_rule import Change, CommitState, Tables, version_number_in
from orchard.tables.reports import take_up

log = escaping_logger(__name__)


@dataclass(frozen=True)
class _ModelState:
    """What pca_model finds: the batches, the choices, and which batch versions each chosen model lacks.

    Attributes:
        published: every batch as it is published.
        versions: every published batch's current version.
        promotion: the newest one; None before there is a model.
        pinned: the pinned models.
        lacking: by model, the current one and each pinned one, the versions that it has no rows of, or older ones.
        is_lost: whether the current model's file was lost, so that a repair took it out of `models`.
        retired: (model, batch) with rows, of these models and of batches that were retired with all their backbone.
        considered: see ModelPlan.
        is_judged: whether a refit needs no thought: the model is held, or all this was considered before.
    """

    published: BatchVersions
    versions: tuple[BatchVersion, ...]
    promotion: Promotion | None
    pinned: tuple[str, ...]
    lacking: dict[str, tuple[BatchVersion, ...]]
    is_lost: bool
    retired: list[Pair]
    considered: str
    is_judged: bool

    @property
    def work(self) -> str | None:
        """What there is to do, in words; None when there is nothing."""
        if self.is_lost and self.versions:
            return "the current model's file was lost"
        for model_id, lacking in self.lacking.items():
            if lacking:
                which = "current model" if self.promotion and model_id == self.promotion.model_id else f"pinned model {model_id}"
                return f"the {which} lacks {len(lacking)} of {len(self.versions)} batches"
        if self.versions and not self.is_judged:
            return f"the {len(self.versions)} published batches were not yet judged together"
        return f"rows of {len(self.retired)} retired batches are left" if self.retired else None


def pending_work(tables: Tables, settings: Settings) -> str | None:
    """Return what pca_model has to do, in words, or None when it has nothing to do. Reads no moments."""
    return _model_state(tables, settings).work


def plan_model(tables: Tables, settings: Settings) -> ModelPlan:
    """Decide what pca_model does now, and freeze its Spark job's work.

    Three ends: nothing is missing; the current or a pinned model lacks batches (or holds them in an older version), and the
    current one is held or keeps enough variance; or there is no model, the components asked for changed, or a refit gains
    more than the threshold: a fit on the merge of all batches.

    Rows of retired batches that were published during the retirement are removed on the way.

    Returns:
        The plan; its projection plan and a new model's file lie in the warehouse when it is returned.
    """
    found = _model_state(tables, settings)
    remove_rows(tables, found.retired)
    found = replace(found, retired=[])
    if found.work is None:
        count = len(found.versions)
        reason = f"all {count} published batches are covered" if count else "no batch is published yet"
        return ModelPlan("idle", reason, found.considered)
    if found.is_judged and found.promotion is not None:
        why = "is held" if found.promotion.is_held else "was judged with these batches before"
        return _keep(tables, settings, found, f"the current model {why}")
    judged = _Evaluation.of(tables, settings, found)
    refit = _refit_reason(settings, judged)
    if refit is None:
        return _keep(tables, settings, found, f"a refit would gain {judged.gain:.4f} of the variance", judged.gain)
    return _fit(tables, settings, found, judged, refit)


@dataclass(frozen=True)
class _Evaluation:
    """What is decided on: the merged moments' spectrum; the current model and what a refit gains on it, None without one.

    `merged` are the versions that the moments are of: all that can be read.
    """

    spectrum: Spectrum
    merged: tuple[BatchVersion, ...]
    model: Model | None
    gain: float | None

    @classmethod
    def of(cls, tables: Tables, settings: Settings, found: _ModelState) -> "_Evaluation":
        model = read_model(tables.warehouse, found.promotion.model_id) if found.promotion and not found.is_lost else None
        moments, merged = merged_moments(tables, settings.backbone.id, found.versions, model)
        spectrum = Spectrum.of(moments)
        return cls(spectrum, merged, model, spectrum.gain(model.basis.components, settings.model.components) if model else None)


def publish_model(tables: Tables, plan: ModelPlan, report: JobReport, run_id: str) -> None:
    """Publish a projection: a new model's row, all models' rows of all batches in one commit, the promotion, the run.

    A batch that got a newer version meanwhile is left out: the next run projects it. A retry commits what is left.

    Raises:
        SupersededError: another model was promoted meanwhile.
        JobError: a staged file is gone or damaged.
    """
    projection = plan.projection
    assert projection is not None, "a plan without a projection has nothing to publish"
    if plan.action == "fit":
        assert plan.model_id is not None, "a fit makes a model"
        file = model_file(tables.warehouse, plan.model_id)
        tables.commit(MODELS, [Change(f"model/{plan.model_id}", 1, digest_of(plan.model_id), (), (file,))], "append")
    changes = [
        Change(version_key(model.model_id, batch.batch_id), batch.number, batch.manifest_digest, staged.partition, staged.files)
        for (model, batch), staged in zip(projection.pairs, report.of_table(PCA_FEATURES.name), strict=True)
    ]
    record_captured(tables, report.captured)
    tables.commit(PCA_FEATURES, changes)
    if plan.action == "fit":
        _promote(tables, projection.backbone, plan)
    record_model_run(tables, projection.backbone, plan, run_id)


def record_model_run(tables: Tables, backbone: str, plan: ModelPlan, run_id: str) -> None:
    """Append what a run of pca_model did and why, once a run, and that all this was considered."""
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
    }
    key = f"model_run/{run_id}/{plan.considered}"
    row_change = Change(key, 1, plan.considered, (), (tables.stage(MODEL_RUNS, [row]),))
    tables.commit(MODEL_RUNS, [row_change, Change(_considered_key(plan.considered), 1, plan.considered)], "append")


def _model_state(tables: Tables, settings: Settings) -> _ModelState:
    backbone = settings.backbone.id
    published = BatchVersions.load(tables, backbone)
    versions = published.readable()
    promotion = current_promotion(tables, backbone)
    there = _models_with_files(tables)
    is_lost = promotion is not None and promotion.model_id not in there
    pinned = tuple(one for one in pinned_models(tables, backbone) if one in there) if promotion else ()
    chosen = dict.fromkeys(one for one in [promotion.model_id, *pinned] if one in there) if promotion else {}
    considered = _considered(settings, versions, promotion)
    is_held = promotion is not None and promotion.is_held
    is_judged = not is_lost and (is_held or version_number_in(tables.load(MODEL_RUNS), _considered_key(considered)) > 0)
    retired = rows_of_retired_batches(tables, published, chosen)
    lacking = _readable_of(published, _lacking(tables, chosen, versions))
    return _ModelState(published, versions, promotion, pinned, lacking, is_lost, retired, considered, is_judged)


def _models_with_files(tables: Tables) -> set[str]:
    """Return the published models, by the files that the table names, which are not read."""
    paths = (parse(file.path) for file in tables.load(MODELS).files())
    return {path.model_id for path in paths if isinstance(path, ModelPath)}


def _readable_of(published: BatchVersions, lacking: dict[str, tuple[BatchVersion, ...]]) -> dict[str, tuple[BatchVersion, ...]]:
    """Return what models lack without the batches that have lost a file: no job could project them."""
    warehouse = published.tables.warehouse
    lost = set()
    for batch_id in sorted({version.batch_id for versions in lacking.values() for version in versions}):
        for file in published.features_files(batch_id):
            if warehouse.size(file.path) != file.size_bytes:
                lost.add(batch_id)
                log.warning(
                    "batch %s is not projected: %s differs from what was published", batch_id, warehouse.uri_of(file.path)
                )
    return {model: tuple(one for one in versions if one.batch_id not in lost) for model, versions in lacking.items()}


def _considered(settings: Settings, versions: Iterable[BatchVersion], promotion: Promotion | None) -> str:
    """Return the digest of what decides on a refit. Pins are not in it: what they lack is looked up, never remembered."""
    current = [promotion.model_id, promotion.is_held] if promotion else None
    return digest_of([list(map(list, sources_of(versions))), current, settings.model.components, settings.model.refit_gain])


def _considered_key(considered: str) -> str:
    return f"considered/{considered}"


def _lacking(tables: Tables, model_ids: Iterable[str], versions: Sequence[BatchVersion]) -> dict[str, tuple[BatchVersion, ...]]:
    """Return by model the versions that it has no rows of, or rows of an older version."""
    snapshot = tables.load(PCA_FEATURES)

    def is_behind(model_id: str, version: BatchVersion) -> bool:
        change = Change(version_key(model_id, version.batch_id), version.number, version.manifest_digest)
        return change.state_in(snapshot) is CommitState.BEHIND

    return {model_id: tuple(version for version in versions if is_behind(model_id, version)) for model_id in model_ids}


def _refit_reason(settings: Settings, judged: _Evaluation) -> str | None:
    model, gain = judged.model, judged.gain
    if model is None or gain is None:
        return "there is no model yet"
    if model_id_of(model.backbone, settings.model.components, model.sources) != model.model_id:
        return f"the current model was not fitted with ORCHARD_COMPONENTS={settings.model.components}"
    if gain > settings.model.refit_gain:
        return f"a refit gains {gain:.4f} of the variance, more than {settings.model.refit_gain}"
    return None


def _keep(tables: Tables, settings: Settings, found: _ModelState, reason: str, gain: float | None = None) -> ModelPlan:
    assert found.promotion is not None, "without a model there is none to keep"
    plan = ModelPlan("keep", reason, found.considered, found.promotion.model_id, gain)
    return _with_projection(tables, settings, plan, found.lacking)


def _fit(tables: Tables, settings: Settings, found: _ModelState, judged: _Evaluation, reason: str) -> ModelPlan:
    basis, moments = judged.spectrum.fit(settings.model.components), judged.spectrum.moments
    if basis is None:
        why = f"{moments.n} published images have no variance: one, or all alike"
        return ModelPlan("none", why, found.considered, gain=judged.gain)
    backbone, sources = settings.backbone.id, sources_of(judged.merged)
    model_id = model_id_of(backbone, settings.model.components, sources)
    components = create_model(tables.warehouse, Model(model_id, backbone, basis, moments, sources)).basis.components
    distance = subspace_distance(components, judged.model.basis.components) if judged.model else None
    # A model that was current before may lack nothing. Its rows are then made again: only a finished job is promoted.
    own = _lacking(tables, [model_id], judged.merged)[model_id] or judged.merged
    lacking = _readable_of(found.published, {model_id: own}) | {
        pin: found.lacking[pin] for pin in found.pinned if pin != model_id
    }
    considered = _considered(settings, found.versions, Promotion(0, model_id))
    plan = ModelPlan("fit", reason, considered, model_id, judged.gain, distance, found.promotion)
    return _with_projection(tables, settings, plan, lacking)


def _with_projection(
    tables: Tables, settings: Settings, plan: ModelPlan, lacking: dict[str, tuple[BatchVersion, ...]]
) -> ModelPlan:
    """Return the plan with its Spark job's work, frozen in the warehouse, where a model lacks something."""
    wanted = {model_id: batches for model_id, batches in lacking.items() if batches}
    if not wanted:
        return plan
    projections = tuple(Projection(model_reference(tables.warehouse, one), batches) for one, batches in wanted.items())
    projection = ProjectionPlan(settings.backbone.id, projections)
    while not take_up(tables.warehouse, work_digest(projection.digest, projection.backbone, "project")):
        projection = replace(projection, attempt=projection.attempt + 1)
    tables.warehouse.create(projection_plan_path(projection.digest), projection.to_json().encode())
    return replace(plan, projection=projection)


def _promote(tables: Tables, backbone: str, plan: ModelPlan) -> None:
    assert plan.model_id is not None, "only a fitted model is promoted"
    if not append_promotion(
        tables, PromotionRequest(backbone, plan.model_id, plan.judged, plan.reason, plan.gain, plan.distance)
    ):
        raise SupersededError(f"another model than {plan.model_id} was promoted meanwhile; its promotion is kept")
