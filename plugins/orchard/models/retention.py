"""Rows of models that are neither current nor pinned, and when they go; and rows of batches that went before them.

A model's file and its `models` row stay.

A model whose rows went is as one that never had any: when it is promoted or pinned again, its DAG finds that it lacks
every batch. So no lock is needed. Rows that are removed while another run promotes the model are projected again. Rows that a
running DAG publishes after the removal are found by the next look.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from orchard_jobs.contract.columns import PINS, PROMOTIONS

from orchard.models.kinds import KINDS, PCA, Kind
from orchard.models.model import current_promotion, pinned_models
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions, version_key
from orchard.tables.commit_rule import NO_DIGEST, Change, Tables
from orchard.tables.delta_log import TableFile

Pair = tuple[str, str]


def expired_models(tables: Tables, settings: Settings, now: datetime) -> tuple[str, ...]:
    """Return the models, of any backbone, whose rows have outlived ORCHARD_MODEL_RETENTION_DAYS, sorted.

    Args:
        tables: the tables.
        settings: the retention.
        now: in UTC; the days run since the model was last current or pinned, or since it was fitted when it never was.
    """
    with_rows = {file.partition["model_id"] for kind in KINDS for file in _files_with_rows(tables, kind)}
    ends = _last_uses(tables)
    chosen = _chosen_models(tables, with_rows)
    retention = timedelta(days=settings.retention.model_days)
    return tuple(sorted(one for one in with_rows - chosen if one in ends and now - ends[one] >= retention))


def expire_models(tables: Tables, model_ids: Iterable[str]) -> tuple[str, ...]:
    """Remove all rows of some models, in one commit for each kind that also forgets their batch versions' numbers.

    A model that has become current or pinned meanwhile keeps its rows.

    Returns:
        The models that had rows and have none now, sorted.
    """
    wanted = set(model_ids)
    unchosen = wanted - _chosen_models(tables, wanted)
    expired: set[str] = set()
    for kind in KINDS:
        pairs = _pairs_with_rows(tables, unchosen, kind)
        remove_rows(tables, pairs, kind)
        expired |= {model_id for model_id, _ in pairs}
    return tuple(sorted(expired))


def rows_of_retired_batches(tables: Tables, published: BatchVersions, model_ids: Collection[str], kind: Kind) -> list[Pair]:
    """Return the (model, batch) pairs that have rows although the batch was retired: a run published them meanwhile."""
    return [pair for pair in _pairs_with_rows(tables, model_ids, kind) if published.is_retired(pair[1])]


def remove_rows(tables: Tables, pairs: Collection[Pair], kind: Kind = PCA) -> None:
    """Remove the rows of some (model, batch) pairs from a kind's table, in one commit that also forgets their numbers."""
    if pairs:
        tables.commit(kind.rows, [Change(version_key(*pair), 0, NO_DIGEST, pair) for pair in pairs])


def _pairs_with_rows(tables: Tables, model_ids: Collection[str], kind: Kind) -> list[Pair]:
    pairs = {(file.partition["model_id"], file.partition["batch_id"]) for file in _files_with_rows(tables, kind)}
    return sorted(pair for pair in pairs if pair[0] in model_ids)


def _files_with_rows(tables: Tables, kind: Kind) -> list[TableFile]:
    return tables.load(kind.rows).files()


def _chosen_models(tables: Tables, model_ids: Collection[str]) -> set[str]:
    """Return which of some models are the current one of their backbone and kind, or pinned."""
    chosen: set[str] = set()
    for kind in KINDS:
        rows = tables.rows(kind.models, ("model_id", "backbone"))
        for backbone in {row["backbone"] for row in rows if row["model_id"] in model_ids}:
            promotion = current_promotion(tables, backbone, kind)
            chosen |= {*pinned_models(tables, backbone, kind), *([promotion.model_id] if promotion else [])}
    return chosen


def _last_uses(tables: Tables) -> dict[str, datetime]:
    """Return by model when it was fitted, succeeded by another model, or unpinned, whichever was last."""
    fitted = (row for kind in KINDS for row in tables.rows(kind.models, ("model_id", "created_at")))
    ends: dict[str, datetime] = {row["model_id"]: row["created_at"] for row in fitted}

    def extend(model_id: str, moment: datetime) -> None:
        ends[model_id] = max(ends.get(model_id, moment), moment)

    for row in tables.rows(PROMOTIONS, ("predecessor", "model_id", "promoted_at")):
        if row["predecessor"] not in (None, row["model_id"]):
            extend(row["predecessor"], row["promoted_at"])
    for row in tables.rows(PINS, ("model_id", "is_pinned", "pinned_at")):
        if not row["is_pinned"]:
            extend(row["model_id"], row["pinned_at"])
    return ends
