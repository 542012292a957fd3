"""The state of the tables: each batch's state, what is pending, what failed and why, as far as the warehouse shows.

Reads only. A run that failed before it wrote anything is known to Airflow alone; here its batch is `new` or `changed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchard_jobs.contract.columns import RUNS, TABLES, Table
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import DamagedFileError, NoTableError

from orchard.batch.comparison import ListingComparer
from orchard.batch.reconcile import Differences, ListPrefix, find_differences
from orchard.models.captured import captured_shares
from orchard.models.model import MergedVersion, current_promotion
from orchard.models.recorded_evaluations import Accuracy, accuracies
from orchard.models.refit import pending_works
from orchard.reporting.begun import begun_state, begun_versions
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables

_COUNTS = ("listed", "quarantined", "missing")
STATES = {
    "published": "every listed image is in its current version",
    "new": "listed, never published",
    "changed": "what is listed differs from what is published",
    "planned": "a run has planned a version; its job is at work, or failed",
    "staged": "a job has staged a version; it is being published, or its run was cut off",
    "refused": "the audit rejects what a job has staged; none of it is published",
    "damaged": "a file of its published version is lost or damaged; the batch waits until it is repaired",
    "half-way": "a version is in some tables only; the next run of the batch completes it",
}


@dataclass(frozen=True)
class BatchState:
    """The state of one batch.

    Attributes:
        batch_id: the batch.
        state: one of STATES.
        version: its current version's number; None when it was never published.
        listed: objects when that was planned.
        quarantined: of them, set aside.
        missing: published, and no longer listed then.
        captured: share of its variance that the current model keeps; None where that does not cover it, or nothing varies.
        is_covered: whether the current model covers its current version.
        accuracy: the share of its predictions that is right; None where nothing tells.
        why: what the audit refuses, or how far a version came; empty where nothing is wrong.
    """

    batch_id: str
    state: str
    version: int | None = None
    listed: int | None = None
    quarantined: int | None = None
    missing: int | None = None
    captured: float | None = None
    is_covered: bool = False
    accuracy: Accuracy | None = None
    why: str = ""


@dataclass(frozen=True)
class WarehouseStatus:
    """The state of the batches and the model.

    Attributes:
        backbone: the settings' backbone.
        model_id: its current model; None: there is none yet.
        batches: every batch that is published, listed or begun, sorted.
        model_work: what each model's DAG has to do, by its id; one that has nothing to do is left out.
        strays: objects in the landing zone under no batch key; None where it was not listed.
        junk: files in it that desktops make, which no listing counts as images; None where it was not listed.
        damage: what is lost or damaged of what no batch owns.
    """

    backbone: str
    model_id: str | None = None
    batches: tuple[BatchState, ...] = ()
    model_work: Mapping[str, str] = field(default_factory=dict)
    strays: int | None = None
    junk: int | None = None
    damage: tuple[str, ...] = ()

    def in_state(self, *states: str) -> tuple[BatchState, ...]:
        """Return the batches in some states."""
        return tuple(batch for batch in self.batches if batch.state in states)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is pending and nothing failed."""
        return not self.model_work and not self.damage and len(self.in_state("published")) == len(self.batches)


def read_status(tables: Tables, settings: Settings, list_prefix: ListPrefix | None) -> WarehouseStatus:
    """Return the state of the batches and the model.

    Args:
        tables: the tables; where none is there yet, nothing is published.
        settings: backbone, landing zone and audit policy.
        list_prefix: lists the objects of the landing bucket below a key prefix; None leaves the comparison out.
    """
    backbone = settings.backbone.id
    try:
        has_tables = _has_tables(tables)
    except DamagedFileError as error:
        return WarehouseStatus(backbone, damage=(str(error),))
    if not has_tables:
        landing = find_differences(list_prefix, settings.landing_zone, lambda _, __: True) if list_prefix else None
        new = tuple(BatchState(batch_id, "new") for batch_id in landing.batch_ids) if landing else ()
        return WarehouseStatus(backbone, batches=new, strays=landing.strays if landing else None)
    view = ListingComparer.load(tables, settings)
    landing = find_differences(list_prefix, settings.landing_zone, view.differs) if list_prefix else None
    states = _States.of(tables, settings, view.versions, landing)
    batch_ids = {*view.versions.current, *view.versions.half_way, *states.damaged}
    batch_ids |= set(states.begun if landing is None else landing.batch_ids)
    model_work, damage = dict[str, str](), list(states.damage)
    try:
        model_work = pending_works(tables, settings)
    except DamagedFileError as error:
        damage.append(str(error))
    return WarehouseStatus(
        backbone,
        states.model_id,
        tuple(states.of_batch(batch_id) for batch_id in sorted(batch_ids)),
        model_work,
        landing.strays if landing else None,
        damage=tuple(dict.fromkeys(damage)),
    )


def _has_tables(tables: Tables) -> bool:
    """Tell whether `runs` is there; DamagedFileError when it is not although another table holds what was published."""
    try:
        tables.load(RUNS)
    except NoTableError:
        held = [table.name for table in TABLES if _is_written(tables, table)]
        if held:
            raise DamagedFileError(tables.warehouse.uri_of(RUNS.name), f"is no table, although there is {held[0]}") from None
        return False
    return True


def _is_written(tables: Tables, table: Table) -> bool:
    try:
        return tables.load(table).version > 0
    except NoTableError:
        return False


@dataclass(frozen=True)
class _States:
    """What the states of all batches are judged by.

    Attributes:
        begun: by batch, the newest manifest that is not published and can still be.
        accuracies: of predicted batch versions.
        damage: what is lost or damaged of what no batch owns.
    """

    tables: Tables
    settings: Settings
    versions: BatchVersions
    landing: Differences | None
    rows: Mapping[str, dict[str, Any]]
    begun: Mapping[str, ManifestHead]
    model_id: str | None = None
    shares: Mapping[MergedVersion, float | None] = field(default_factory=dict)
    accuracies: Mapping[MergedVersion, Accuracy] = field(default_factory=dict)
    damage: tuple[str, ...] = ()

    @classmethod
    def of(cls, tables: Tables, settings: Settings, versions: BatchVersions, landing: Differences | None) -> "_States":
        model_id, shares, right, damage = _told_of_models(tables, settings)
        files = [
            file
            for file in versions.runs.files(backbone=versions.backbone)
            if file.partition["batch_id"] not in versions.unreadable
        ]
        rows = {row["manifest_digest"]: row for row in tables.rows_of(files, ("manifest_digest", "model_id", *_COUNTS))}
        return cls(
            tables,
            settings,
            versions,
            landing,
            rows,
            {head.batch_id: head for head in begun_versions(tables, versions, rows)},
            model_id,
            shares,
            right,
            damage,
        )

    @property
    def damaged(self) -> Mapping[str, DamagedFileError]:
        """By batch, what is known to be lost or damaged of it."""
        return {**self.versions.unreadable, **(self.landing.damaged if self.landing else {})}

    def of_batch(self, batch_id: str) -> BatchState:
        """Return the state of a batch."""
        state, why = self._state(batch_id)
        version = self.versions.current.get(batch_id)
        if version is None:
            return BatchState(batch_id, state, why=why)
        counts = {name: self.rows[version.manifest_digest][name] for name in _COUNTS}
        source = (batch_id, version.manifest_digest)
        found = BatchState(batch_id, state, version.number, **counts, accuracy=self.accuracies.get(source), why=why)
        return replace(found, captured=self.shares.get(source), is_covered=source in self.shares)

    def _state(self, batch_id: str) -> tuple[str, str]:
        if batch_id in self.damaged:
            return "damaged", str(self.damaged[batch_id])
        if not self.versions.is_complete(batch_id):
            return "half-way", f"version {self.versions.highest_number(batch_id)} has no `runs` row yet"
        is_published = batch_id in self.versions.current
        differs = None if self.landing is None else batch_id in self.landing.batch_ids
        head = self.begun.get(batch_id)
        # A batch that needs nothing may still have an old version that was begun and never finished.
        if head is not None and (differs or differs is None):
            return begun_state(self.tables.warehouse, self.settings, head)
        if differs:
            return ("changed" if is_published else "new"), ""
        return "published", ""


def _told_of_models(
    tables: Tables, settings: Settings
) -> tuple[str | None, Mapping[MergedVersion, float | None], Mapping[MergedVersion, Accuracy], tuple[str, ...]]:
    """Return the current PCA model, what it keeps of each batch version, how right predictions are, and what is damaged."""
    model_id = None
    try:
        promotion = current_promotion(tables, settings.backbone.id)
        model_id = promotion.model_id if promotion else None
        return model_id, captured_shares(tables, model_id) if model_id else {}, accuracies(tables), ()
    except DamagedFileError as error:
        return model_id, {}, {}, (str(error),)
