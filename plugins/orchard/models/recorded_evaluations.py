"""How classifiers did on batch versions: recorded once, read by reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchard_jobs.contract.classifier_tables import EVALUATIONS
from orchard_jobs.contract.evaluations import Cell, Evaluation, mean_score, right_in

from orchard.models.model import MergedVersion
from orchard.tables.commit_rule import Change, Tables


@dataclass(frozen=True)
class Accuracy:
    """The share of a batch version's predictions that are right.

    Attributes:
        share: of labelled images that the classifier had never seen; where there are none, the mean score of unlabelled ones.
        is_estimate: whether it is that mean.
    """

    share: float
    is_estimate: bool

    def to_text(self) -> str:
        """Return it as a table shows it; a `~` stands before an estimate."""
        return f"{'~' if self.is_estimate else ''}{self.share:.1%}"


def accuracies(tables: Tables) -> dict[MergedVersion, Accuracy]:
    """Return by (batch_id, manifest_digest) how right the predictions of a batch version are, as far as the tables tell."""
    columns = ("batch_id", "manifest_digest", "unseen_rows", "unseen_right", "unlabelled_score")
    found: dict[MergedVersion, Accuracy] = {}
    for row in tables.rows(EVALUATIONS, columns):
        version = (row["batch_id"], row["manifest_digest"])
        if row["unseen_rows"]:
            found[version] = Accuracy(row["unseen_right"] / row["unseen_rows"], is_estimate=False)
        elif row["unlabelled_score"] is not None:
            found.setdefault(version, Accuracy(row["unlabelled_score"], is_estimate=True))
    return found


def record_evaluations(tables: Tables, evaluations: Sequence[Evaluation]) -> None:
    """Append how classifiers did on batch versions, once a classifier and version for ever.

    Called before the predictions are published, as `record_captured` is before the coordinates.
    """
    changes = []
    for one in evaluations:
        key = f"evaluation/{one.model_id}/{one.manifest_digest}"
        changes.append(Change(key, 1, one.manifest_digest, (), (tables.stage(EVALUATIONS, [evaluation_row(one)]),)))
    if changes:
        tables.commit(EVALUATIONS, changes, mode="append")


def evaluation_row(one: Evaluation) -> dict[str, Any]:
    """Return the row of an evaluation."""
    unseen, seen, unlabelled = one.unseen, one.seen, one.unlabelled
    return {
        "model_id": one.model_id,
        "batch_id": one.batch_id,
        "manifest_digest": one.manifest_digest,
        "rows": one.rows,
        "unseen_rows": _sum(unseen, "rows"),
        "unseen_right": right_in(unseen),
        "unseen_among_three": _sum(unseen, "among_three"),
        "unseen_known": _sum(unseen, "known"),
        "unseen_score": mean_score(unseen),
        "seen_rows": _sum(seen, "rows"),
        "seen_right": right_in(seen),
        "unlabelled_rows": _sum(unlabelled, "rows"),
        "unlabelled_known": _sum(unlabelled, "known"),
        "unlabelled_score": mean_score(unlabelled),
        "confusion": [{"class": cell.truth, "predicted": cell.predicted, "rows": cell.rows} for cell in unseen],
    }


def _sum(cells: Sequence[Cell], name: str) -> int:
    return sum(getattr(cell, name) for cell in cells)
