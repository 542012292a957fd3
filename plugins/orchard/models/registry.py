"""What is chosen of a backbone's models of a kind: which one is current (promotions), whether it is held, and which are pinned.

Both tables are append-only and numbered, so two choices at once are made one after the other. `append_promotion` gives up when
the promotion that it was judged on has changed; the other functions read the table again and retry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from orchard_jobs.contract.columns import PINS, PROMOTIONS
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.pca.fit import subspace_distance
from orchard_jobs.storage import Warehouse

from orchard.models.kinds import PCA, Kind
from orchard.models.model import Promotion, current_promotion, known_model, pinned_models, read_model
from orchard.settings import Settings
from orchard.tables.commit_rule import COMMIT_TRIES, Change, CommitState, Tables, version_number_in


@dataclass(frozen=True)
class PromotionRequest:
    """A promotion to append right after the one that it was decided on.

    Attributes:
        backbone: the backbone's id.
        model_id: the model that becomes the current one.
        judged: the promotion before; None when there was none.
        reason: why, in words.
        gain: share of the merged variance that the refit gained; None where nothing was refitted, or nothing was there before.
        distance: of the model's subspace from its predecessor's (`pca.fit.subspace_distance`); None for the first.
        is_held: whether there must be no refit after it.
        kind: the model's kind.
    """

    backbone: str
    model_id: str
    judged: Promotion | None
    reason: str
    gain: float | None = None
    distance: float | None = None
    is_held: bool = False
    kind: Kind = PCA


def append_promotion(tables: Tables, succession: PromotionRequest) -> bool:
    """Append a promotion right after the judged one; return whether the table holds it, now or from an earlier try.

    Its number is fixed by the judged one's, so an old run that is run again finds its own promotion or another writer's,
    and changes nothing.
    """
    judged = succession.judged
    sequence = judged.sequence + 1 if judged else 1
    row = {
        "backbone": succession.backbone,
        "sequence": sequence,
        "model_id": succession.model_id,
        "predecessor": judged.model_id if judged else None,
        "reason": succession.reason,
        "gain": succession.gain,
        "distance": succession.distance,
        "is_held": succession.is_held,
        "promoted_at": datetime.now(UTC),
        "kind": succession.kind.name,
    }
    digest = digest_of([succession.model_id, succession.is_held])
    key = succession.kind.key(PROMOTIONS, succession.backbone)
    change = Change(key, sequence, digest, (), (tables.stage(PROMOTIONS, [row]),))
    return tables.commit(PROMOTIONS, [change], "append").states[0] is not CommitState.SUPERSEDED


def promote(tables: Tables, settings: Settings, model_id: str) -> bool:
    """Make a published model of the current backbone the current one, and hold it: no refit until `release`.

    A model that is promoted meanwhile becomes its predecessor. What the model lacks is made by the next run of its kind's DAG.

    Returns:
        False when there is nothing to do: it is the current model already, and held.

    Raises:
        ConfigurationError: no model has this id, or it is one of another backbone.
    """
    backbone = settings.backbone.id
    known, kind = known_model(tables, backbone, model_id)

    def decide(current: Promotion | None) -> PromotionRequest | None:
        if current is not None and current.model_id == known and current.is_held:
            return None
        distance = distance_between(tables.warehouse, known, current.model_id, kind) if current else None
        return PromotionRequest(backbone, known, current, "promoted by hand", None, distance, is_held=True, kind=kind)

    return _append_until_it_stands(tables, backbone, kind, decide)


def release(tables: Tables, settings: Settings, kind: Kind = PCA) -> bool:
    """Let a kind's DAG refit again where that is worth it: promote the current model once more, not held.

    Returns:
        False when there is nothing to do: the current model is not held.

    Raises:
        ConfigurationError: the backbone has no model of this kind yet.
    """
    backbone = settings.backbone.id

    def decide(current: Promotion | None) -> PromotionRequest | None:
        if current is None:
            raise ConfigurationError(f"{backbone} has no model yet, so none is held: publish a batch first")
        if not current.is_held:
            return None
        distance = distance_between(tables.warehouse, current.model_id, current.model_id, kind)
        return PromotionRequest(backbone, current.model_id, current, "released by hand", distance=distance, kind=kind)

    return _append_until_it_stands(tables, backbone, kind, decide)


def pin(tables: Tables, settings: Settings, model_id: str) -> bool:
    """Keep a model of the current backbone alive: every published batch is projected with it, too.

    Returns:
        False when it is pinned already.

    Raises:
        ConfigurationError: no model has this id, or it is one of another backbone.
    """
    return _set_pin(tables, settings, model_id, is_pinned=True)


def unpin(tables: Tables, settings: Settings, model_id: str) -> bool:
    """Let a pinned model go: no batch is projected with it any more, unless it is the current one.

    Returns:
        False when it is not pinned.

    Raises:
        ConfigurationError: no model has this id, or it is one of another backbone.
    """
    return _set_pin(tables, settings, model_id, is_pinned=False)


def distance_between(warehouse: Warehouse, model_id: str, other: str, kind: Kind = PCA) -> float | None:
    """Return the distance of two PCA models' subspaces; None for models of another kind, which span none."""
    if kind is not PCA:
        return None
    if model_id == other:
        return 0.0
    return subspace_distance(read_model(warehouse, model_id).basis.components, read_model(warehouse, other).basis.components)


def _append_until_it_stands(
    tables: Tables, backbone: str, kind: Kind, decide: Callable[[Promotion | None], PromotionRequest | None]
) -> bool:
    for _ in range(COMMIT_TRIES):
        succession = decide(current_promotion(tables, backbone, kind))
        if succession is None:
            return False
        if append_promotion(tables, succession):
            return True
    raise JobError(f"promotions: gave up after {COMMIT_TRIES} conflicts with other writers; run the command again")


def _set_pin(tables: Tables, settings: Settings, model_id: str, is_pinned: bool) -> bool:
    backbone = settings.backbone.id
    known, kind = known_model(tables, backbone, model_id)
    key = kind.key(PINS, backbone)
    for _ in range(COMMIT_TRIES):
        # The number before the rows: another writer's choice between the two supersedes ours, and we look again.
        sequence = version_number_in(tables.load(PINS), key) + 1
        if (known in pinned_models(tables, backbone, kind)) == is_pinned:
            return False
        row = {
            "backbone": backbone,
            "sequence": sequence,
            "model_id": known,
            "is_pinned": is_pinned,
            "pinned_at": datetime.now(UTC),
            "kind": kind.name,
        }
        change = Change(key, sequence, digest_of([known, is_pinned]), (), (tables.stage(PINS, [row]),))
        if tables.commit(PINS, [change], "append").states[0] is not CommitState.SUPERSEDED:
            return True
    raise JobError(f"pins: gave up after {COMMIT_TRIES} conflicts with other writers; run the command again")
