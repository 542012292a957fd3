"""A backbone's published models at a glance: what each was fitted on, what it keeps, and what is chosen of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchard_jobs.contract.columns import CAPTURED, PROMOTIONS

from orchard.models.kinds import CLASSIFIER, PCA, Kind
from orchard.models.model import MergedVersion, current_promotion, pinned_models
from orchard.tables.batch_versions import current_versions
from orchard.tables.commit_rule import Tables

_ANY = ("model_id", "backbone", "n", "merged_from", "created_at")
_PCA = (*_ANY, "k", "explained_variance_ratio")
_CLASSIFIER = (*_ANY, "classes", "shrinkage", "held_out", "held_out_rows", "accuracy")


@dataclass(frozen=True, kw_only=True)
class _Summary:
    """What is said of a model of any kind.

    Attributes:
        model_id: its id.
        n: rows that it was fitted on.
        batches: batch versions that it was fitted on.
        created_at: when it was fitted, in UTC.
        reason: of its first promotion; None when it was never promoted.
        is_current: whether it is the current model of its kind.
        is_held: whether it is current and held.
        is_pinned: whether it is pinned.
    """

    model_id: str
    n: int
    batches: int
    created_at: datetime
    reason: str | None
    is_current: bool
    is_held: bool
    is_pinned: bool


@dataclass(frozen=True, kw_only=True)
class ModelSummary(_Summary):
    """One published PCA model.

    Attributes:
        k: components that it has.
        captured: share of the variance that it keeps of the published batch versions that it was projected on, each about its own
            mean; None where none has variance.
        gain: share of the merged variance that fitting it gained; None for the first model.
        distance: of its subspace from its predecessor's when it was first promoted; None for the first model.
        explained_variance_ratio: by component.
    """

    k: int
    captured: float | None
    gain: float | None
    distance: float | None
    explained_variance_ratio: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ClassifierSummary(_Summary):
    """One published classifier.

    Attributes:
        classes: its classes, sorted.
        shrinkage: the chosen one.
        held_out: whether `batches` or `contents` were held out to judge it.
        held_out_rows: rows that were.
        accuracy: share of them that got their class.
    """

    classes: tuple[str, ...]
    shrinkage: float
    held_out: str
    held_out_rows: int
    accuracy: float


def list_models(tables: Tables, backbone: str) -> tuple[ModelSummary, ...]:
    """Return a backbone's published PCA models, the newest last."""
    current = {(version.batch_id, version.manifest_digest) for version in current_versions(tables, backbone)}
    kept = _captured(tables, current)
    return tuple(
        ModelSummary(
            **common,
            k=row["k"],
            captured=_overall(kept.get(row["model_id"], {}).values()),
            gain=promoted.get("gain"),
            distance=promoted.get("distance"),
            explained_variance_ratio=tuple(row["explained_variance_ratio"]),
        )
        for row, promoted, common in _published(tables, backbone, PCA, _PCA)
    )


def list_classifiers(tables: Tables, backbone: str) -> tuple[ClassifierSummary, ...]:
    """Return a backbone's published classifiers, the newest last."""
    own = ("shrinkage", "held_out", "held_out_rows", "accuracy")
    return tuple(
        ClassifierSummary(**common, classes=tuple(row["classes"]), **{name: row[name] for name in own})
        for row, _, common in _published(tables, backbone, CLASSIFIER, _CLASSIFIER)
    )


def _published(
    tables: Tables, backbone: str, kind: Kind, columns: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Yield of each model of a kind its row, that of its first promotion (empty: none), and what is said of any kind."""
    promotion, pinned = current_promotion(tables, backbone, kind), pinned_models(tables, backbone, kind)
    promotions = sorted(tables.rows(PROMOTIONS), key=lambda row: row["sequence"], reverse=True)
    first = {row["model_id"]: row for row in promotions if row["backbone"] == backbone and kind.owns(row)}
    rows = [row for row in tables.rows(kind.models, columns) if row["backbone"] == backbone]
    for row in sorted(rows, key=lambda row: (row["created_at"], row["model_id"])):
        model_id, promoted = row["model_id"], first.get(row["model_id"], {})
        is_current = promotion is not None and promotion.model_id == model_id
        common = {name: row[name] for name in ("model_id", "n", "created_at")}
        common |= {"batches": len(row["merged_from"]), "reason": promoted.get("reason"), "is_current": is_current}
        common |= {"is_held": is_current and promotion is not None and promotion.is_held, "is_pinned": model_id in pinned}
        yield row, promoted, common


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
