"""How much of each batch version's variance a model keeps: recorded once, read by status and model lists."""

from collections.abc import Sequence

from orchard_jobs.contract.columns import CAPTURED
from orchard_jobs.contract.jobs import Captured

from orchard.models.model import MergedVersion
from orchard.tables.commit_rule import Change, Tables


def record_captured(tables: Tables, captured: Sequence[Captured]) -> None:
    """Append what a model keeps of each batch version's variance, only once for each model and version.

    Called before their rows are published: afterwards nothing would be left to do for a run that comes after a cut.
    A retired backbone's stay, so that one that comes back and makes the same versions finds its own.

    Args:
        tables: the tables.
        captured: one entry for each model and batch version.
    """
    changes = []
    for entry in captured:
        row = {
            "model_id": entry.model_id,
            "batch_id": entry.batch_id,
            "manifest_digest": entry.manifest_digest,
            "captured": entry.share,
            "total": entry.total,
        }
        key = f"captured/{entry.model_id}/{entry.manifest_digest}"
        changes.append(Change(key, 1, entry.manifest_digest, (), (tables.stage(CAPTURED, [row]),)))
    tables.commit(CAPTURED, changes, mode="append")


def captured_shares(tables: Tables, model_id: str) -> dict[MergedVersion, float | None]:
    """Return by (batch_id, manifest_digest) the share of a batch version's variance that a model keeps."""
    rows = (row for row in tables.rows(CAPTURED) if row["model_id"] == model_id)
    return {(row["batch_id"], row["manifest_digest"]): row["captured"] for row in rows}
