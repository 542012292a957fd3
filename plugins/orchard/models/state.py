"""What a run of a model's DAG finds: the published batches, the choices of a person, and what each chosen model lacks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchard_jobs.contract.columns import MODEL_RUNS
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.contract.layout import ModelPath, parse
from orchard_jobs.escaping import escaping_logger

from orchard.models.kinds import CLASSIFIER, Kind
from orchard.models.labels import label_meaning
from orchard.models.model import Promotion, current_promotion, pinned_models, sources_of
from orchard.models.retention import Pair, rows_of_retired_batches
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions, version_key
from orchard.tables.commit_rule import Change, CommitState, Tables, version_number_in

log = escaping_logger(__name__)
Lacking = Mapping[str, tuple[BatchVersion, ...]]


@dataclass(frozen=True)
class ModelState:
    """What there is of one kind of model, and what it lacks.

    Attributes:
        kind: the kind.
        published: every batch as it is published.
        versions: every published batch's current version.
        promotion: the newest one; None before there is a model.
        pinned: the pinned models.
        lacking: by model, the current one and each pinned one, the versions that it has no rows of, or older ones.
        is_lost: whether the current model's file was lost, so that a repair took it out of its table.
        retired: (model, batch) with rows, of these models and of batches that were retired with all their backbone.
        deciding: what the settings say that decides on a refit.
        considered: see ModelPlan.
        is_judged: whether a refit needs no thought: the model is held, or all this was considered before.
    """

    kind: Kind
    published: BatchVersions
    versions: tuple[BatchVersion, ...]
    promotion: Promotion | None
    pinned: tuple[str, ...]
    lacking: Lacking
    is_lost: bool
    retired: list[Pair]
    deciding: tuple[object, ...]
    considered: str
    is_judged: bool

    def considered_with(self, promotion: Promotion) -> str:
        """Return what was considered once another promotion stands."""
        return _considered_digest(self.versions, promotion, self.deciding)

    def lacking_of_pins(self, other: str) -> Lacking:
        """Return what each pinned model but one lacks."""
        return {pin: self.lacking[pin] for pin in self.pinned if pin != other}

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


def model_state(tables: Tables, settings: Settings, kind: Kind) -> ModelState:
    """Return what there is of a kind of model of the settings' backbone. Reads no statistics of a batch."""
    backbone = settings.backbone.id
    published = BatchVersions.load(tables, backbone)
    versions = published.readable()
    promotion = current_promotion(tables, backbone, kind)
    there = _models_with_files(tables, kind)
    is_lost = promotion is not None and promotion.model_id not in there
    pinned = tuple(one for one in pinned_models(tables, backbone, kind) if one in there) if promotion else ()
    chosen = dict.fromkeys(one for one in [promotion.model_id, *pinned] if one in there) if promotion else {}
    deciding = _deciding_settings(settings, kind)
    considered = _considered_digest(versions, promotion, deciding)
    is_held = promotion is not None and promotion.is_held
    is_judged = not is_lost and (is_held or version_number_in(tables.load(MODEL_RUNS), considered_key(considered)) > 0)
    retired = rows_of_retired_batches(tables, published, chosen, kind)
    lacking = readable_of(published, lacking_of(tables, kind, chosen, versions))
    return ModelState(kind, published, versions, promotion, pinned, lacking, is_lost, retired, deciding, considered, is_judged)


def _models_with_files(tables: Tables, kind: Kind) -> set[str]:
    """Return the published models, by the files that the table names, which are not read."""
    paths = (parse(file.path) for file in tables.load(kind.models).files())
    return {path.model_id for path in paths if isinstance(path, ModelPath)}


def readable_of(published: BatchVersions, lacking: Lacking) -> Lacking:
    """Return what models lack without the batches that have lost a file: no job could read them."""
    warehouse = published.tables.warehouse
    lost = set()
    for batch_id in sorted({version.batch_id for versions in lacking.values() for version in versions}):
        for file in published.features_files(batch_id):
            if warehouse.size(file.path) != file.size_bytes:
                lost.add(batch_id)
                log.warning("batch %s is left out: %s differs from what was published", batch_id, warehouse.uri_of(file.path))
    return {model: tuple(one for one in versions if one.batch_id not in lost) for model, versions in lacking.items()}


def _considered_digest(versions: Iterable[BatchVersion], promotion: Promotion | None, deciding: Iterable[object]) -> str:
    """Return the digest of what decides on a refit. Pins are not in it: what they lack is looked up, never remembered."""
    current = [promotion.model_id, promotion.is_held] if promotion else None
    return digest_of([list(map(list, sources_of(versions))), current, *deciding])


def _deciding_settings(settings: Settings, kind: Kind) -> tuple[object, ...]:
    if kind is CLASSIFIER:
        chosen = settings.classifier
        return kind.name, label_meaning(chosen).fields(), chosen.growth, chosen.promotion_margin
    return settings.model.components, settings.model.refit_gain


def considered_key(considered: str) -> str:
    """Return the key under which `model_runs` remembers that a digest was considered."""
    return f"considered/{considered}"


def lacking_of(tables: Tables, kind: Kind, model_ids: Iterable[str], versions: Sequence[BatchVersion]) -> Lacking:
    """Return by model the versions that it has no rows of, or rows of an older version."""
    snapshot = tables.load(kind.rows)

    def is_behind(model_id: str, version: BatchVersion) -> bool:
        change = Change(version_key(model_id, version.batch_id), version.number, version.manifest_digest)
        return change.state_in(snapshot) is CommitState.BEHIND

    return {model_id: tuple(version for version in versions if is_behind(model_id, version)) for model_id in model_ids}
