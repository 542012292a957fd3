"""When a PCA model is refitted, and its fit: on the merged moments of all published batches."""

from dataclasses import dataclass

from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.pca.fit import Spectrum, subspace_distance

from orchard.models.kinds import PCA
from orchard.models.merged_moments import merged_moments
from orchard.models.model import Model, Promotion, create_model, model_id_of, read_model, sources_of
from orchard.models.model_plan import ModelPlan, freeze_projection, keep_current, projection_of
from orchard.models.state import ModelState, lacking_of, readable_of
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables


def decide_pca(tables: Tables, settings: Settings, found: ModelState) -> ModelPlan:
    """Keep the current model, or fit one: there is none, ORCHARD_COMPONENTS changed, or a refit gains more than the threshold."""
    judged = _Evaluation.of(tables, settings, found)
    refit = _refit_reason(settings, judged)
    if refit is None:
        return keep_current(tables, found, f"a refit would gain {judged.gain:.4f} of the variance", judged.gain)
    return _fit_pca(tables, settings, found, judged, refit)


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
    def of(cls, tables: Tables, settings: Settings, found: ModelState) -> "_Evaluation":
        model = read_model(tables.warehouse, found.promotion.model_id) if found.promotion and not found.is_lost else None
        moments, merged = merged_moments(tables, settings.backbone.id, found.versions, model)
        spectrum = Spectrum.of(moments)
        return cls(spectrum, merged, model, spectrum.gain(model.basis.components, settings.model.components) if model else None)


def _refit_reason(settings: Settings, judged: _Evaluation) -> str | None:
    model, gain = judged.model, judged.gain
    if model is None or gain is None:
        return "there is no model yet"
    if model_id_of(model.backbone, settings.model.components, model.sources) != model.model_id:
        return f"the current model was not fitted with ORCHARD_COMPONENTS={settings.model.components}"
    if gain > settings.model.refit_gain:
        return f"a refit gains {gain:.4f} of the variance, more than {settings.model.refit_gain}"
    return None


def _fit_pca(tables: Tables, settings: Settings, found: ModelState, judged: _Evaluation, reason: str) -> ModelPlan:
    basis, moments = judged.spectrum.fit(settings.model.components), judged.spectrum.moments
    if basis is None:
        why = f"{moments.n} published images have no variance: one, or all alike"
        return ModelPlan("none", why, found.considered, gain=judged.gain)
    backbone, sources = settings.backbone.id, sources_of(judged.merged)
    model_id = model_id_of(backbone, settings.model.components, sources)
    components = create_model(tables.warehouse, Model(model_id, backbone, basis, moments, sources)).basis.components
    distance = subspace_distance(components, judged.model.basis.components) if judged.model else None
    # A model that was current before may lack nothing. Its rows are then made again: only a finished job is promoted.
    own = lacking_of(tables, PCA, [model_id], judged.merged)[model_id] or judged.merged
    lacking = {**readable_of(found.published, {model_id: own}), **found.lacking_of_pins(model_id)}
    considered = found.considered_with(Promotion(0, model_id))
    plan = ModelPlan("fit", reason, considered, model_id, judged.gain, distance, found.promotion)
    return freeze_projection(tables.warehouse, plan, projection_of(tables.warehouse, found, lacking))
