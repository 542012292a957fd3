"""The newest view in this process's memory, read again when its pointer names other parts. Knows no HTTP."""

import threading
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from orchard_jobs.storage import Warehouse

from orchard.reporting.view import ViewPointer, read_pointer, read_versions

# The most pressing first: a day of the calendar shows that of its batches which comes first here.
STATES = ("damaged", "refused", "half-way", "planned", "staged", "published")
SHOWN = (
    *("batch_id", "state", "why", "version", "listed", "featurized", "reused", "quarantined", "missing"),
    *("audit_verdict", "model_id", "seconds", "images_per_second", "published_at"),
)


@dataclass(frozen=True)
class BatchQuery:
    """Which batches a table shows, and in which order.

    Attributes:
        states: those in one of these states; empty: in any.
        text: those whose id holds this text.
        first: those of this day or later.
        last: those of this day or earlier.
        sort: the column to sort by, one of SHOWN; batches without a value come last.
        is_descending: whether the largest comes first.
        offset: batches to leave out at the beginning.
        limit: batches to show.
    """

    states: tuple[str, ...] = ()
    text: str = ""
    first: date | None = None
    last: date | None = None
    sort: str = "batch_id"
    is_descending: bool = True
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True)
class ShownView:
    """A view with all its rows."""

    pointer: ViewPointer
    versions: pa.Table

    @cached_property
    def batches(self) -> pa.Table:
        """One row a batch, the newest first, with `seconds` of its jobs and `images_per_second` that its backbone computed."""
        newest_first = pc.indices_nonzero(self.versions["is_current"])[::-1]
        rows = self.versions.take(newest_first).combine_chunks()
        reduce = pc.fill_null(rows["reduce_seconds"], 0.0)
        rows = rows.append_column("seconds", pc.add(rows["featurize_seconds"], reduce))
        took = pc.if_else(pc.greater(rows["featurize_seconds"], 0.0), rows["featurize_seconds"], None)
        return rows.append_column("images_per_second", pc.divide(pc.cast(rows["network_runs"], pa.float64()), took))

    def told(self, now: datetime) -> dict[str, Any]:
        """Return what a page says of the view itself."""
        age = (now - self.pointer.age_from).total_seconds()
        return {"written_at": self.pointer.written_at, "age_seconds": max(0, round(age)), "backbone": self.pointer.backbone}

    def find_batches(self, query: BatchQuery) -> dict[str, Any]:
        """Return the rows that a query asks for, how many there are in all, and the number of batches in each state."""
        found = _filtered(self.batches, query)
        indices = _order(found, query)[query.offset : query.offset + query.limit]
        return {"total": found.num_rows, "rows": found.select(SHOWN).take(indices).to_pylist(), "states": self._states}

    @cached_property
    def _states(self) -> dict[str, int]:
        counts = {one["values"]: one["counts"] for one in pc.value_counts(self.batches["state"]).to_pylist()}
        return {state: counts[state] for state in STATES if state in counts}

    def versions_of(self, batch_id: str) -> list[dict[str, Any]]:
        """Return the rows of a batch, the current one last; none for a batch that the view does not know."""
        found: list[dict[str, Any]] = self.versions.filter(pc.equal(self.versions["batch_id"], batch_id)).to_pylist()
        return found

    def batch_of_run(self, run_id: str) -> str | None:
        """Return the batch of which a run of Airflow published a version; None where it published none."""
        found = self.versions.filter(pc.equal(self.versions["run_id"], run_id))["batch_id"]
        return found[0].as_py() if len(found) else None

    def version_named(self, manifest_digest: str) -> dict[str, Any] | None:
        """Return the row of a manifest; None where the view does not know it."""
        found: list[dict[str, Any]] = self.versions.filter(
            pc.equal(self.versions["manifest_digest"], manifest_digest)
        ).to_pylist()
        return found[0] if found else None

    def calendar(self, year: int | None) -> dict[str, Any]:
        """Return each day of a year, by default the last with a batch: its batches and images, and its most pressing state."""
        years = sorted(self._days)
        shown = year if year is not None or not years else years[-1]
        return {"years": years, "year": shown, "days": [] if shown is None else self._days.get(shown, [])}

    @cached_property
    def _days(self) -> dict[int, list[dict[str, Any]]]:
        """By year, its days with a batch."""
        found: dict[int, list[dict[str, Any]]] = {}
        for day in _days(self.batches.filter(pc.is_valid(self.batches["day"]))):
            found.setdefault(int(day["day"][:4]), []).append(day)
        return found


def _filtered(rows: pa.Table, query: BatchQuery) -> pa.Table:
    if query.states:
        rows = rows.filter(pc.is_in(rows["state"], pa.array(query.states)))
    if query.text:
        rows = rows.filter(pc.match_substring(rows["batch_id"], query.text))
    if query.first is not None:
        rows = rows.filter(pc.greater_equal(rows["day"], query.first))
    if query.last is not None:
        rows = rows.filter(pc.less_equal(rows["day"], query.last))
    return rows


def _order(rows: pa.Table, query: BatchQuery) -> Any:
    """Return the numbers of the rows, which stand newest first, in the order that a query asks for; equal ones stay so."""
    if query.sort != "batch_id":
        return pc.sort_indices(rows, sort_keys=[(query.sort, "descending" if query.is_descending else "ascending")])
    numbers = pa.array(range(rows.num_rows), pa.int64())
    return numbers if query.is_descending else numbers[::-1]


def _days(rows: pa.Table) -> list[dict[str, Any]]:
    ranks = pc.index_in(rows["state"], pa.array(STATES))
    counts = [("batch_id", "count"), ("listed", "sum"), ("quarantined", "sum"), ("rank", "min")]
    found = rows.append_column("rank", ranks).group_by("day").aggregate(counts).sort_by("day").to_pylist()
    return [
        {
            "day": day["day"].isoformat(),
            "batches": day["batch_id_count"],
            "listed": day["listed_sum"],
            "quarantined": day["quarantined_sum"],
            "state": STATES[day["rank_min"]],
        }
        for day in found
    ]


class ViewReader:
    """The newest view of a warehouse. Safe to use from many threads."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self._lock = threading.Lock()
        self._shown: ShownView | None = None

    def newest(self) -> ShownView | None:
        """Return the newest view, or None where there is none yet; reads its pointer, and its rows when that names others.

        Raises:
            DamagedFileError: the view is lost or damaged.
        """
        pointer = read_pointer(self.warehouse)
        if pointer is None:
            return None
        with self._lock:
            if self._shown is None or self._shown.pointer != pointer:
                self._shown = ShownView(pointer, read_versions(self.warehouse, pointer))
            return self._shown
