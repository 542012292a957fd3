"""A backbone's published models at a glance: what each was fitted on, what it keeps, and what is chosen of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchard_jobs.contract.columns import CAPTURED, MODELS, PROMOTIONS

from orchard.models.kinds import PCA
from orchard.models.model import MergedVersion, current_promotion, pinned_models
from orchard.tables.batch_versions import current_versions
from orchard.tables.commit_rule import Tables

_MODEL = ("model_id", "backbone", "k", "n", "merged_from", "explained_variance_ratio", "created_at")


@dataclass(frozen=True)
class ModelSummary:
    """One published model.

    Attributes:
        model_id: its id.
        k: components that it has.
        n: rows that it was fitted on.
        batches: batch versions that it was merged from.
        created_at: when it was fitted, in UTC.
        captured: share of the variance that it keeps of the published batch versions that it was projected on, each about its own
            mean; None where none has variance.
        gain: share of the merged variance that fitting it gained; None for the first model.
        distance: of its subspace from its predecessor's when it was first promoted; None for the first model.
        reason: of its first promotion; None when it was never promoted.
        is_current: whether it is the current model.
        is_held: whether it is current and held.
        is_pinned: whether it is pinned.
        explained_variance_ratio: by component.
    """

    model_id: str
    k: int
    n: int
    batches: int
    created_at: datetime
    captured: float | None
    gain: float | None
    distance: float | None
    reason: str | None
    is_current: bool
    is_held: bool
    is_pinned: bool
    explained_variance_ratio: tuple[float, ...]


def list_models(tables: Tables, backbone: str) -> tuple[ModelSummary, ...]:
    """Return a backbone's published models, the newest last."""
    promotion = current_promotion(tables, backbone)
    pinned = pinned_models(tables, backbone)
    promotions = sorted(tables.rows(PROMOTIONS), key=lambda row: row["sequence"], reverse=True)
    first = {row["model_id"]: row for row in promotions if row["backbone"] == backbone and PCA.owns(row)}
    current = {(version.batch_id, version.manifest_digest) for version in current_versions(tables, backbone)}
    kept = _captured(tables, current)
    found = []
    for row in tables.rows(MODELS, _MODEL):
        if row["backbone"] != backbone:
            continue
        model_id = row["model_id"]
        promoted = first.get(model_id, {})
        is_current = promotion is not None and promotion.model_id == model_id
        found.append(
            ModelSummary(
                model_id=model_id,
                k=row["k"],
                n=row["n"],
                batches=len(row["merged_from"]),
                created_at=row["created_at"],
                captured=_overall(kept.get(model_id, {}).values()),
                gain=promoted.get("gain"),
                distance=promoted.get("distance"),
                reason=promoted.get("reason"),
                is_current=is_current,
                is_held=is_current and promotion is not None and promotion.is_held,
                is_pinned=model_id in pinned,
                explained_variance_ratio=tuple(row["explained_variance_ratio"]),
            )
        )
    return tuple(sorted(found, key=lambda one: (one.created_at, one.model_id)))


def _captured(tables: Tables, current: set[MergedVersion]) -> Mapping[str, Mapping[MergedVersion, tuple[float, float]]]:
    """Return by model and current batch version (share, sum of squares) of those with variance."""
    found: dict[str, dict[MergedVersion, tuple[float, float]]] = {}
    for row in tables.rows(CAPTURED):
        source = (row["batch_id"], row["manifest_digest"])
        if source in current and row["captured"] is not None:
            found.setdefault(row["model_id"], {})[source] = (row["captured"], row["total"])
    return found


def _overall(parts: Iterable[tuple[Any, Any]]) -> float | None:
    held = list(parts)
    whole = sum(total for _, total in held)
    return float(sum(share * total for share, total in held) / whole) if whole else None
