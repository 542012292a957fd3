"""Brings the pages' view up to date with the tables, or builds it anew. The only writer of the view.

Reads of `runs` only the files that the view does not show yet.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS
from orchard_jobs.contract.layout import ViewPath
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import pack
from orchard_jobs.storage import Warehouse

from orchard.batch.manifests import read_head
from orchard.landing_zone.periods import period_start
from orchard.reporting.begun import begun_state, begun_versions, can_be_published
from orchard.reporting.view import VERSIONS, ViewPointer, read_pointer, read_versions, stage_part
from orchard.reporting.view_images import stage_images
from orchard.reporting.view_models import stage_models, stage_promotions
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions, CurrentVersion
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile

log = escaping_logger(__name__)
_ATTEMPTS = 5
_OF_RUNS = tuple(name for name in VERSIONS.names if any(column.name == name for column in RUNS.columns))
_EMPTY = VERSIONS.empty_table()


@dataclass(frozen=True)
class _News:
    """What a view may not show yet, besides new files of `runs`: manifests that were planned, models."""

    begun: Collection[str]
    has_new_models: bool


def refresh_view(
    tables: Tables,
    settings: Settings,
    now: datetime,
    begun: Collection[str] = (),
    *,
    has_new_models: bool = False,
    is_anew: bool = False,
) -> ViewPointer:
    """Let the view show what the tables hold; return its pointer.

    Of several at once the last one to write shows all that was published before it began: each looks once more after it wrote.
    A lost or damaged view is built anew, so only the tables can make it fail.

    Args:
        tables: the tables.
        settings: name the backbone, the key format and the audit policy.
        now: the present, which the view tells as its age.
        begun: digests of manifests that a run has planned.
        has_new_models: models or promotions may differ from those that the view shows.
        is_anew: read all of `runs` and list all manifests, so that nothing of the former view is taken over.

    Raises:
        NoTableError: no batch has got as far as a plan.
        DamagedFileError: a table's log is damaged.
    """
    news = _News(begun, has_new_models)
    for attempt in range(_ATTEMPTS):
        before = _readable_pointer(tables.warehouse)
        pointer = _make(tables, settings, now, None if is_anew else before, news)
        if _readable_pointer(tables.warehouse) != before and attempt < _ATTEMPTS - 1:
            continue
        tables.warehouse.rewrite(str(ViewPath()), pointer.to_json().encode())
        is_anew = False
        if tables.load(RUNS).version == pointer.runs_version:
            break
    log.info("view runs_version=%s begun=%s", pointer.runs_version, len(pointer.begun))
    return pointer


def _readable_pointer(warehouse: Warehouse) -> ViewPointer | None:
    try:
        return read_pointer(warehouse)
    except DamagedFileError as error:
        log.warning("the view is built anew: %s", error)
        return None


def _make(tables: Tables, settings: Settings, now: datetime, former: ViewPointer | None, news: _News) -> ViewPointer:
    backbone = settings.backbone.id
    former = former if former is not None and former.backbone == backbone else None
    # `runs` first, as `BatchVersions.load` does: what is committed meanwhile shows as half-way, and is looked at again.
    runs = tables.load(RUNS)
    versions = BatchVersions(tables, backbone, {}, runs, tables.load(FEATURES), tables.load(QUARANTINE))
    published, damaged = _published(tables, settings, runs.files(backbone=backbone), former)
    digests = set(published["manifest_digest"].to_pylist())
    if former is None:
        heads = list(begun_versions(tables, versions, digests))
    else:
        wanted = [digest for digest in dict.fromkeys([*former.begun, *news.begun]) if digest not in digests]
        heads = [head for head in _heads(tables.warehouse, wanted) if can_be_published(versions, head)]
    states = {head.batch_id: _of_begun(tables.warehouse, settings, versions, head) for head in heads}
    states.update(damaged)
    rows = _with_states(published, versions, states, settings.landing_zone.key_format)
    part = stage_part(tables.warehouse, pack(_with_images(tables, versions, rows)))
    models = _models(tables, backbone, None if news.has_new_models else former)
    return ViewPointer(backbone, now.isoformat(), runs.version, tuple(head.digest for head in heads), part, *models)


def _models(tables: Tables, backbone: str, former: ViewPointer | None) -> tuple[str, str]:
    """Return the parts with the models and their promotions: those of a former view, or new ones."""
    if former is not None:
        return former.models, former.promotions
    return stage_models(tables, backbone), stage_promotions(tables, backbone)


@dataclass(frozen=True)
class _Told:
    """The state of a batch that is not simply published, why, and the manifest that was begun, where one was."""

    state: str
    why: str
    head: ManifestHead | None = None


def _published(
    tables: Tables, settings: Settings, files: Sequence[TableFile], former: ViewPointer | None
) -> tuple[pa.Table, Mapping[str, _Told]]:
    """Return the published versions, without states, and what is damaged by batch; only files that are new are read."""
    kept = _kept(tables.warehouse, former, [file.path for file in files])
    known = set(kept["source"].to_pylist())
    rows: list[dict[str, Any]] = []
    damaged: dict[str, _Told] = {}
    for file in files:
        if file.path not in known:
            try:
                rows += _rows_of(tables, file, settings.landing_zone.key_format)
            except DamagedFileError as error:
                damaged[file.partition["batch_id"]] = _Told("damaged", str(error))
    return pa.concat_tables([kept, pa.Table.from_pylist(rows, VERSIONS)]), damaged


def _rows_of(tables: Tables, file: TableFile, key_format: str) -> Iterator[dict[str, Any]]:
    for row in tables.rows_of([file], _OF_RUNS):
        yield row | {"source": file.path, "day": _day_of(row["batch_id"], key_format)}


def _kept(warehouse: Warehouse, former: ViewPointer | None, paths: Sequence[str]) -> pa.Table:
    """Return the rows of the former view that files of `runs` still hold."""
    if former is None:
        return _EMPTY
    try:
        rows = read_versions(warehouse, former)
    except DamagedFileError as error:
        log.warning("the view is built anew: %s", error)
        return _EMPTY
    return rows.filter(pc.is_in(rows["source"], pa.array(paths, pa.string())))


def _heads(warehouse: Warehouse, digests: Collection[str]) -> Iterator[ManifestHead]:
    """Yield the manifests that are still there and whole."""
    for digest in digests:
        try:
            yield read_head(warehouse, digest)
        except DamagedFileError as error:
            log.warning("a begun version is left out of the view: %s", error)


def _of_begun(warehouse: Warehouse, settings: Settings, versions: BatchVersions, head: ManifestHead) -> _Told:
    if not versions.is_complete(head.batch_id):
        return replace(_state_in_tables(versions, head.batch_id), head=head)
    return _Told(*begun_state(warehouse, settings, head), head)


def _with_states(published: pa.Table, versions: BatchVersions, told: Mapping[str, _Told], key_format: str) -> pa.Table:
    """Return the view's rows: the published versions, and a row for each batch that has none, with the state of each batch."""
    without = sorted(set(told).difference(published["batch_id"].to_pylist()))
    added = [_unpublished_row(batch_id, told[batch_id].head, key_format) for batch_id in without]
    rows = pa.concat_tables([published, pa.Table.from_pylist(added, VERSIONS)])
    rows = rows.sort_by([("batch_id", "ascending"), ("version", "ascending")])
    batch_ids = rows["batch_id"].to_pylist()
    is_last = [batch_id != after for batch_id, after in zip_longest(batch_ids, batch_ids[1:])]
    found = {batch_id: told.get(batch_id) or _state_in_tables(versions, batch_id) for batch_id in set(batch_ids)}
    columns = {
        "is_current": pa.array(is_last, pa.bool_()),
        "state": pa.array([found[batch_id].state for batch_id in batch_ids], pa.string()),
        "why": pa.array([found[batch_id].why for batch_id in batch_ids], pa.string()),
    }
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), VERSIONS.field(name), column)
    return rows


def _with_images(tables: Tables, versions: BatchVersions, rows: pa.Table) -> pa.Table:
    """Return the rows with a part of images for each current version, and for no other."""
    names = [field.name for field in fields(CurrentVersion)]
    known = rows.select(["batch_id", "manifest_digest", "version", "features_version", "quarantine_version"]).rename_columns(
        names
    )
    parts = pc.if_else(rows["is_current"], rows["images"], None).to_pylist()
    wanted = pc.and_(rows["is_current"], pc.is_valid(rows["version"])).to_pylist()
    for index, is_wanted in enumerate(wanted):
        if is_wanted and parts[index] is None:
            (version,) = known.slice(index, 1).to_pylist()
            parts[index] = _staged_images(tables, versions, CurrentVersion(**version))
    return rows.set_column(rows.schema.get_field_index("images"), VERSIONS.field("images"), pa.array(parts, pa.string()))


def _staged_images(tables: Tables, versions: BatchVersions, version: CurrentVersion) -> str | None:
    of_batch = replace(versions, current={version.batch_id: version})
    try:
        return stage_images(tables.warehouse, of_batch, version.batch_id)
    except DamagedFileError as error:
        log.warning("the images of batch %s are left out of the view: %s", version.batch_id, error)
        return None


_PUBLISHED = _Told("published", "")


def _state_in_tables(versions: BatchVersions, batch_id: str) -> _Told:
    if versions.is_complete(batch_id):
        return _PUBLISHED
    return _Told("half-way", f"version {versions.highest_number(batch_id)} has no `runs` row yet")


def _unpublished_row(batch_id: str, head: ManifestHead | None, key_format: str) -> dict[str, Any]:
    planned = {"manifest_digest": head.digest, "listed": head.listed, "missing": head.missing} if head else {}
    return {"batch_id": batch_id, "day": _day_of(batch_id, key_format), **planned}


def _day_of(batch_id: str, key_format: str) -> date | None:
    try:
        return period_start(batch_id, key_format).date()
    except ValueError:
        return None
