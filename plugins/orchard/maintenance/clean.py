"""Remove unused files. Only this module removes what a table names or a run wrote; a repair also removes a damaged log or model.

A file is removed if it is older than the retention and nothing in use names it. These are staged files that no table took,
replaced files, scratch, exports of backbones without a batch, and former parts of the pages' view. Reports, plans and manifests
of finished work go, too.
A report is removed before the files that it names; planning then starts such work again. Those files and the manifest follow one
retention later, because a task may be publishing them. Work that a run takes up meanwhile stays (`tables.reports.take_up`).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from orchard_jobs.contract.layout import (
    BackbonePath,
    FaultPath,
    ManifestPath,
    ModelPath,
    ModelPlanPath,
    ProgressPath,
    ProjectionPlanPath,
    RemovalNotePath,
    ScratchPath,
    StagedPath,
    ViewPath,
    WorkPath,
    data_file_of_checksum,
    manifest_path,
    report_path,
)
from orchard_jobs.storage import StoredFile, Warehouse

from orchard.maintenance.work_files import WorkFiles, named_by_tables, named_by_view, scan_warehouse
from orchard.models.retention import expire_models, expired_models
from orchard.outcomes import Done, Outcome, Skipped, use_case
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import mark_path

# In the order of removal: what names files goes before them.
KINDS = ("report", "plan", "manifest", "replaced", "staged", "model", "scratch", "network", "view", "note")
# Reports and projection plans are not among them: what they say decides whether they go.
_KIND_OF: Mapping[type, str] = {
    ManifestPath: "manifest",
    ModelPlanPath: "plan",
    BackbonePath: "network",
    ViewPath: "view",
    RemovalNotePath: "note",
    ScratchPath: "scratch",
    FaultPath: "scratch",
    ProgressPath: "scratch",
    ModelPath: "model",
    StagedPath: "staged",
}


@dataclass(frozen=True)
class Removal:
    """One file to remove.

    Attributes:
        kind: one of KINDS.
        path: relative to the warehouse.
        size_bytes: its size.
        names: the files that it names; they stay for one more retention.
        work: the piece of work that needs it, by its digest; empty where none does.
    """

    kind: str
    path: str
    size_bytes: int
    names: tuple[str, ...] = ()
    work: str = ""


@dataclass(frozen=True)
class RemovalTotal:
    """How much of one kind was removed, or is to be removed."""

    kind: str
    files: int
    size_bytes: int


def clean(tables: Tables, settings: Settings, now: datetime, retention: timedelta) -> tuple[RemovalTotal, ...]:
    """Remove the rows of expired models, then unused files; return how much of each kind.

    The rows' files are replaced ones from then on, and go one retention later.

    Raises:
        JobError: a table is not there; nothing is removed then.
    """
    expire_models(tables, expired_models(tables, settings, now))
    return totals(remove(tables, find_removals(tables, settings, now, retention), now, retention))


@use_case
def clean_on_schedule(tables: Tables, settings: Settings, now: datetime) -> Outcome[tuple[RemovalTotal, ...]]:
    """Clean with the retention of the settings; skipped when there is nothing to remove."""
    tables.create_all()
    removed = clean(tables, settings, now, timedelta(days=settings.retention.days))
    if not removed:
        return Skipped(f"there is nothing to remove that is older than {settings.retention.days} days")
    return Done(removed)


def totals(removals: Sequence[Removal]) -> tuple[RemovalTotal, ...]:
    """Return how much there is of each kind, in the order of removal."""
    of_kind = {kind: [removal.size_bytes for removal in removals if removal.kind == kind] for kind in KINDS}
    return tuple(RemovalTotal(kind, len(sizes), sum(sizes)) for kind, sizes in of_kind.items() if sizes)


def find_removals(tables: Tables, settings: Settings, now: datetime, retention: timedelta) -> tuple[Removal, ...]:
    """Return what is to be removed, in the order of removal.

    Args:
        tables: the tables; all are there.
        settings: names the backbone in use.
        now: the present.
        retention: what was written, replaced or released less than this before `now` stays. With zero, recent files are removed,
            too, so no run may be active.

    Raises:
        JobError: a table is not there: nothing can be judged then, and nothing is removed.
    """
    seen = scan_warehouse(tables, now - retention)
    removals = {kind: list[Removal]() for kind in KINDS}
    documents = list(_documents(seen))
    for removal in documents:
        removals[removal.kind].append(removal)
    # In this order: a file that is replaced meanwhile is among the named or the replaced ones.
    named, replaced = set(named_by_tables(tables, settings, seen)), tables.replaced()
    named |= named_by_view(tables.warehouse)
    # Somebody may still read the version before.
    lately = {path for path, moment in replaced.items() if moment > seen.young_since} if retention else set()
    stays = _stays(seen, named | lately, retention, documents)
    for file in seen.files.values():
        kind = "replaced" if file.path in replaced else _KIND_OF.get(type(seen.paths.get(file.path)))
        if kind is not None and not stays(file):
            removals[kind].append(Removal(kind, file.path, file.size_bytes, work=seen.work_that_needs(file.path)))
    # A manifest is known by its head: without it the parts are plain leftovers.
    heads = set(map(manifest_path, seen.heads))
    removals["manifest"].sort(key=lambda removal: removal.path not in heads)
    return tuple(removal for kind in KINDS for removal in removals[kind])


def remove(tables: Tables, removals: Sequence[Removal], now: datetime, retention: timedelta) -> tuple[Removal, ...]:
    """Remove files in their order, except those of work that a run has taken up since; return what was removed.

    If it is cut off, or runs twice at once, every published row stays readable.
    """
    names: dict[str, list[str]] = {}
    for removal in removals:
        names.setdefault(removal.work, []).extend(removal.names)

    @cache
    def is_taken_up(work: str) -> bool:
        return bool(work and retention) and _note_then_look(tables.warehouse, work, names[work], now - retention)

    removed = []
    for removal in removals:
        if not is_taken_up(removal.work):
            tables.warehouse.delete(removal.path)
            removed.append(removal)
    return tuple(removed)


def _note_then_look(warehouse: Warehouse, work: str, names: Sequence[str], young_since: datetime) -> bool:
    """Note that a piece of work is removed; then tell whether a run has marked it. A run that takes it up marks first."""
    note = str(RemovalNotePath(work))
    # An earlier cleaning's note may name files.
    if names or warehouse.size(note) is None:
        warehouse.rewrite(note, json.dumps(names).encode())
    mark = warehouse.stat(mark_path(work))
    return mark is not None and mark.modified_at > young_since


def _documents(seen: WorkFiles) -> Iterator[Removal]:
    """Yield the reports and plans that go, each with what it names."""
    for work in seen.reports:
        path = report_path(work)
        if work not in seen.used_reports:
            yield Removal("report", path, seen.files[path].size_bytes, seen.named_by_report(work), work)
    for digest, plan in seen.plans.items():
        path = str(ProjectionPlanPath(digest))
        if digest not in seen.open_inputs:
            names = tuple(model.path for model in plan.models)
            yield Removal("plan", path, seen.files[path].size_bytes, names, seen.work_that_needs(path))


def _stays(
    seen: WorkFiles, needed: Collection[str], retention: timedelta, documents: Sequence[Removal]
) -> Callable[[StoredFile], bool]:
    """Return a function that says whether a file must stay; `needed` are those that tables or their readers need."""
    kept = {*needed, *seen.named_by_work()}
    if retention:
        kept |= {name for removal in documents for name in removal.names}
    kept |= {name for digest, names in seen.notes.items() if seen.is_young(str(RemovalNotePath(digest))) for name in names}

    def stays(file: StoredFile) -> bool:
        known = seen.paths.get(file.path)
        is_active = isinstance(known, WorkPath | StagedPath) and known.work in seen.active_works
        return data_file_of_checksum(file.path) in kept or seen.is_young(file.path) or is_active

    return stays
