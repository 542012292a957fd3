"""The files in the warehouse that are not the tables' published files, and which of them are still in use.

In use is what a table names, what a current or half-way batch version needs, and all that something young names: a job may be
running. This module looks and decides; it removes nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from orchard_jobs.contract.columns import RUNS, TABLES
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.contract.layout import (
    WORK,
    ManifestPath,
    ModelPlanPath,
    ProjectionPlanPath,
    RemovalNotePath,
    ReportPath,
    ViewPath,
    WarehousePath,
    WorkPath,
    backbone_path,
    manifest_path,
    model_path,
    parse,
)
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import StoredFile, Warehouse

from orchard.models.kinds import KINDS
from orchard.models.model import current_promotion
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import job_digests, mark_path, parsed

T = TypeVar("T")
P = TypeVar("P", bound=WarehousePath)


@dataclass(frozen=True)
class WorkFiles:
    """One look at the warehouse: the files first, then the tables, so that what is committed meanwhile is seen as named.

    Attributes:
        files: every file under the tables' folders and `_work`, by path.
        paths: of the files, what the layout knows of their paths.
        heads: the manifests by digest.
        plans: the projection plans by digest.
        decisions: by digest of a model plan, that of its projection plan.
        reports: the finished reports by work digest.
        notes: by work digest, the files that its removed report or plan named.
        published: the current versions of every backbone.
        young_since: files written after this moment are young.
    """

    files: Mapping[str, StoredFile]
    paths: Mapping[str, WarehousePath]
    heads: Mapping[str, ManifestHead]
    plans: Mapping[str, ProjectionPlan]
    decisions: Mapping[str, str]
    reports: Mapping[str, JobReport]
    notes: Mapping[str, tuple[str, ...]]
    published: tuple[BatchVersions, ...]
    young_since: datetime

    def is_young(self, path: str) -> bool:
        """Tell whether a file exists and was written too recently to be judged."""
        return path in self.files and self.files[path].modified_at > self.young_since

    @cached_property
    def active_works(self) -> frozenset[str]:
        """Work digests with a young file of their own: a count, a scratch file, a report."""
        return frozenset(known.work for path, known in self.paths.items() if isinstance(known, WorkPath) and self.is_young(path))

    @cached_property
    def used_reports(self) -> frozenset[str]:
        """Work digests whose report is young, or belongs to a version that was left half-way: its retry rolls forward."""
        half_way = {work for work, report in self.reports.items() if report.input_digest in self.half_way}
        return frozenset(half_way | (self.reports.keys() & self.active_works))

    @cached_property
    def open_inputs(self) -> frozenset[str]:
        """Digests of the manifests and plans that a job may still read: half-way, young, or of work that goes on."""
        of_reports = {self.reports[work].input_digest for work in self.used_reports}
        young = {d for d in self.heads if self.is_young(manifest_path(d))}
        young |= {d for d in self.plans if self.is_young(str(ProjectionPlanPath(d)))}
        busy = {d for d in (*self.heads, *self.plans) if not self.active_works.isdisjoint(self._works_of(d))}
        return frozenset(self.half_way | of_reports | young | busy)

    @cached_property
    def half_way(self) -> frozenset[str]:
        """Digests of the manifests whose version is in a table without its `runs` row."""
        of_backbone = {versions.backbone: versions for versions in self.published}
        return frozenset(d for d, head in self.heads.items() if of_backbone[head.backbone.id].is_half_way(head.batch_id, d))

    def _works_of(self, digest: str) -> tuple[str, ...]:
        if digest in self.plans:
            return (work_digest(digest, self.plans[digest].backbone, self.plans[digest].stage),)
        return job_digests(self.heads[digest])

    def work_that_needs(self, path: str) -> str:
        """Return the work whose run reads an old file again when it takes the work up; empty where there is none."""
        known = self.paths.get(path)
        if isinstance(known, WorkPath):
            return known.work if path == mark_path(known.work) else ""
        digest = known.digest if isinstance(known, ManifestPath | ProjectionPlanPath) else ""
        if isinstance(known, ModelPlanPath):
            digest = self.decisions.get(known.digest, "")
        return self._works_of(digest)[0] if digest in self.heads or digest in self.plans else ""

    def named_by_work(self) -> Iterator[str]:
        """Yield every file that planning reads of current versions, and that an open manifest, plan or report names."""
        current = {version.manifest_digest for versions in self.published for version in versions.current.values()}
        for digest in (current | self.open_inputs) & self.heads.keys():
            yield from self.manifest_files(digest)
        for digest in self.open_inputs & self.heads.keys():
            head = self.heads[digest]
            yield from map(mark_path, self._works_of(digest))
            yield from (
                *head.features_files,
                *head.quarantine_files,
                *head.vector_files,
                backbone_path(head.backbone.export_id),
            )
            yield from (model.path for model in head.models)
        for digest in self.open_inputs & self.plans.keys():
            plan = self.plans[digest]
            yield mark_path(self._works_of(digest)[0])
            yield backbone_path(plan.backbone)
            yield from (str(ModelPlanPath(decision)) for decision, decided in self.decisions.items() if decided == digest)
            yield from (model.path for model in plan.models)
            yield from plan.tables_files
        for work in self.used_reports:
            yield from self.named_by_report(work)

    def manifest_files(self, digest: str) -> tuple[str, ...]:
        """Return a manifest's own files."""
        head = self.heads[digest]
        names = (*(part.name for part in head.parts), *([head.known.name] if head.known else []))
        return (manifest_path(digest), *(manifest_path(digest, name) for name in names))

    def named_by_report(self, work: str) -> tuple[str, ...]:
        """Return the files that a report names, its manifest's among them: publishing reads both."""
        report = self.reports[work]
        own = self.manifest_files(report.input_digest) if report.input_digest in self.heads else ()
        return (*own, *(file.path for partition in report.partitions for file in partition.files))


def scan_warehouse(tables: Tables, young_since: datetime) -> WorkFiles:
    """Look at the whole warehouse.

    Raises:
        JobError: a table is not there, or `runs` has a damaged file; nothing can be judged then.
    """
    warehouse = tables.warehouse
    folders = (*(table.name for table in TABLES), WORK)
    files = {file.path: file for folder in folders for file in warehouse.files(folder)}
    paths = {path: known for path in files if (known := parse(path)) is not None}

    def of(kind: type[P]) -> Iterator[P]:
        return (known for known in paths.values() if isinstance(known, kind))

    heads = _told(warehouse, {path.digest: path for path in of(ManifestPath) if path.is_head}, ManifestHead.from_json)
    plans = _told(warehouse, {path.digest: path for path in of(ProjectionPlanPath)}, ProjectionPlan.from_json)
    decisions = _told(
        warehouse, {path.digest: path for path in of(ModelPlanPath)}, lambda text: str(json.loads(text)["projection"])
    )
    reports = _told(warehouse, {path.work: path for path in of(ReportPath)}, JobReport.from_json)
    notes = _told(warehouse, {path.digest: path for path in of(RemovalNotePath)}, lambda text: tuple(json.loads(text)))
    backbones = {file.partition["backbone"] for file in tables.load(RUNS).files()} | {h.backbone.id for h in heads.values()}
    published = tuple(BatchVersions.load(tables, backbone) for backbone in sorted(backbones))
    for versions in published:
        versions.check_readable()
    return WorkFiles(files, paths, heads, plans, decisions, reports, notes, published, young_since)


def _told(warehouse: Warehouse, paths: Mapping[str, WarehousePath], parse_text: Callable[[bytes], T]) -> dict[str, T]:
    """Return the contents of the files that still exist: another clean-up may be removing them."""
    texts = {digest: (str(path), warehouse.read_if_there(str(path))) for digest, path in paths.items()}
    return {digest: parsed(warehouse, path, text, parse_text) for digest, (path, text) in texts.items() if text is not None}


def named_by_tables(tables: Tables, settings: Settings, seen: WorkFiles) -> Iterator[str]:
    """Yield every file that is in use: those of each table's newest version and of the version that a current `runs` row names.
    Of each backbone in use, these are its export and the file of each kind's current model, too.
    """
    for table in TABLES:
        yield from (file.path for file in tables.load(table).files())
    for versions in seen.published:
        for batch_id in versions.current:
            yield from (file.path for file in versions.features_files(batch_id))
            yield from (file.path for file in versions.quarantine_files(batch_id))
    backbones = {settings.backbone.id, *(versions.backbone for versions in seen.published if versions.current)}
    yield from map(backbone_path, backbones)
    in_use = [settings.backbone, *(head.backbone for head in seen.heads.values() if head.backbone.id in backbones)]
    yield from (backbone_path(backbone.export_id) for backbone in in_use)
    for kind in KINDS:
        promotions = (current_promotion(tables, backbone, kind) for backbone in backbones)
        yield from (model_path(promotion.model_id, kind.models) for promotion in promotions if promotion is not None)


def named_by_view(warehouse: Warehouse) -> set[str]:
    """Return the pointer of the pages' view, the part that it names, and the parts that this names."""
    pointer = str(ViewPath())
    text = warehouse.read_if_there(pointer)
    if text is None:
        return set()
    named = parsed(warehouse, pointer, text, lambda found: {**json.loads(found)})
    with open_parquet(warehouse, str(named["versions"])) as file:
        of_batches = file.read(["images"])["images"].drop_null().to_pylist()
    return {pointer, *of_batches, *(value for value in named.values() if isinstance(value, str))}
