"""The parts of the pages' view that show a backbone's PCA models and which of them was promoted when."""

from typing import Any

import pyarrow as pa
from orchard_jobs.contract.columns import MODELS, PROMOTIONS
from orchard_jobs.parquet import pack

from orchard.models.kinds import PCA
from orchard.models.model import current_promotion, pinned_models
from orchard.reporting.view import stage_part
from orchard.tables.commit_rule import Tables

_OF_TABLE = ("model_id", "backbone", "k", "n", "merged_from", "explained_variance_ratio", "created_at")
_MODELS = pa.schema(
    [
        ("model_id", pa.string()),
        ("k", pa.int64()),
        ("n", pa.int64()),
        ("batches", pa.int64()),
        ("first_batch", pa.string()),
        ("last_batch", pa.string()),
        ("explained_variance_ratio", pa.list_(pa.float64())),
        ("created_at", pa.timestamp("us", "UTC")),
        ("is_current", pa.bool_()),
        ("is_held", pa.bool_()),
        ("is_pinned", pa.bool_()),
    ]
)
_PROMOTIONS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("model_id", pa.string()),
        ("predecessor", pa.string()),
        ("reason", pa.string()),
        ("gain", pa.float64()),
        ("distance", pa.float64()),
        ("is_held", pa.bool_()),
        ("promoted_at", pa.timestamp("us", "UTC")),
    ]
)


def stage_models(tables: Tables, backbone: str) -> str:
    """Write the part with one row a model, the newest first; return its path."""
    promotion, pinned = current_promotion(tables, backbone), pinned_models(tables, backbone)
    rows = []
    for row in tables.rows(MODELS, _OF_TABLE):
        if row["backbone"] == backbone:
            batches = sorted(source["batch_id"] for source in row.pop("merged_from"))
            is_current = promotion is not None and promotion.model_id == row["model_id"]
            merged = {"batches": len(batches), "first_batch": batches[0], "last_batch": batches[-1]}
            chosen = {"is_current": is_current, "is_held": is_current and promotion is not None and promotion.is_held}
            rows.append(row | merged | chosen | {"is_pinned": row["model_id"] in pinned})
    return stage_part(tables.warehouse, pack(pa.Table.from_pylist(sorted(rows, key=_newest_last)[::-1], _MODELS)))


def _newest_last(row: dict[str, Any]) -> tuple[Any, str]:
    return row["created_at"], row["model_id"]


def stage_promotions(tables: Tables, backbone: str) -> str:
    """Write the part with one row a promotion, the newest first; return its path."""
    rows = [row for row in tables.rows(PROMOTIONS) if row["backbone"] == backbone and PCA.owns(row)]
    newest_first = sorted(rows, key=lambda row: int(row["sequence"]), reverse=True)
    return stage_part(tables.warehouse, pack(pa.Table.from_pylist(newest_first, _PROMOTIONS)))
