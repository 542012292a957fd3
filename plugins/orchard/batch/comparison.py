"""Compare a batch's listing with what is published of it: what is new, changed, unchanged or missing.

What differs is decided by key and ETag, never by time stamps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import open_parquet
from orchard_jobs.schemas import row_identity
from orchard_jobs.storage import Warehouse

from orchard.batch.manifests import read_entries, read_head
from orchard.landing_zone.listing import LISTED, ListedObject, as_columns
from orchard.settings import Settings
from orchard.settings.groups import ImageSettings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile

# What sets images aside until it rises, by its name in the settings and in a manifest's head.
_LIMITS = {
    Reason.OVER_PIXEL_LIMIT: "pixel_limit",
    Reason.OVER_OBJECT_LIMIT: "object_limit",
    Reason.UNSUPPORTED: "reads_heic",
}
log = escaping_logger(__name__)
_ENTRIES = pa.schema([*LISTED, ("action", pa.string()), ("is_missing", pa.bool_())])


@dataclass(frozen=True)
class ListingComparer:
    """What is published of the current backbone, as a listing is compared with it."""

    settings: Settings
    versions: BatchVersions

    @classmethod
    def load(cls, tables: Tables, settings: Settings, batch_id: str | None = None) -> "ListingComparer":
        """Return the view of every batch, or of one; the tables are there."""
        return cls(settings, BatchVersions.load(tables, settings.backbone.id, batch_id))

    def differs(self, batch_id: str, listed: Iterable[ListedObject]) -> bool:
        """Tell whether a run of the batch would make a version: something is new or changed, or a version is not whole."""
        return not self.versions.is_complete(batch_id) or self.compare(batch_id, listed).is_different

    def compare(self, batch_id: str, listed: Iterable[ListedObject]) -> "Comparison":
        """Compare a listing of the whole batch with its current version.

        Raises:
            DamagedFileError: a file of that version is lost or damaged.
        """
        self.versions.check_readable(batch_id)
        warehouse = self.versions.tables.warehouse
        good = _read(warehouse, self.versions.features_files(batch_id), [*LISTED.names])
        bad = _read(warehouse, self.versions.quarantine_files(batch_id), [*LISTED.names, "reason", "manifest_digest"])
        images, landing_zone = self.settings.images, self.settings.landing_zone
        columns = as_columns(listed, landing_zone.bucket, landing_zone.batch_prefix(batch_id))
        return _compare(columns, good, _judged_again(warehouse, bad, images), images.keeps_missing)


@dataclass(frozen=True)
class Comparison:
    """A batch's listing against its current version.

    Attributes:
        entries: an entry (`_ENTRIES`) for each listed object, and one for each published row that is kept though its image is
            no longer listed; sorted by URI.
        dropped: published rows that no entry keeps.
    """

    entries: pa.Table
    dropped: int

    @property
    def is_different(self) -> bool:
        """Whether there is an image to compute or a row to drop; images that are missing and kept make no difference.

        Nor does a batch of which nothing is listed any more.
        """
        return self.listed > 0 and (self.dropped > 0 or self.count("compute") > 0)

    def count(self, action: str) -> int:
        """Return the number of entries of an action."""
        return int(pc.sum(pc.equal(self.entries["action"], action)).as_py() or 0)

    @property
    def listed(self) -> int:
        """The number of listed objects."""
        return int(self.entries.num_rows - (pc.sum(self.entries["is_missing"]).as_py() or 0))

    @property
    def identities(self) -> set[tuple[str, str, bool]]:
        """URI and ETag of every entry, and whether its image is missing."""
        columns = (self.entries[name].to_pylist() for name in ("image_uri", "etag", "is_missing"))
        return set(zip(*columns, strict=True))


def _read(warehouse: Warehouse, files: Iterable[TableFile], columns: list[str]) -> pa.Table:
    """Return some columns of all rows of some files, without pandas' metadata."""
    found = []
    for file in files:
        with open_parquet(warehouse, file.path) as opened:
            found.append(opened.read(columns=columns).select(columns).replace_schema_metadata())
    types = {field.name: field.type for field in LISTED}
    empty = pa.schema([(name, types.get(name, pa.string())) for name in columns]).empty_table()
    return pa.concat_tables([empty, *found], promote_options="permissive").cast(empty.schema)


def _judged_again(warehouse: Warehouse, bad: pa.Table, images: ImageSettings) -> pa.Table:
    """Return quarantine rows with whether each is judged again when it is listed, and dropped when it is not (`vanished`)."""
    is_vanished = pc.equal(bad["reason"], Reason.VANISHED.value)
    again = is_vanished
    for reason, limit in _LIMITS.items():
        is_over = pc.equal(bad["reason"], reason.value)
        over = bad.filter(is_over)
        versions = pc.unique(over["manifest_digest"]).to_pylist()
        unjudged = {uri for digest in versions for uri in _unjudged(warehouse, over, digest, limit, getattr(images, limit))}
        again = pc.or_(again, pc.and_(is_over, pc.is_in(bad["image_uri"], pa.array(sorted(unjudged), pa.string()))))
    return bad.append_column("is_vanished", is_vanished).append_column("is_judged_again", again)


def _unjudged(warehouse: Warehouse, over: pa.Table, digest: str, limit: str, value: int) -> list[str]:
    """Return the images over a limit that a version holds and that no limit as high as this value has judged."""
    try:
        head = read_head(warehouse, digest)
    except DamagedFileError as error:
        log.warning("images over a limit are judged again: %s", error)
        head = None
    if head is None or getattr(head, limit) < value:
        found: list[str] = over["image_uri"].to_pylist()
        return found
    if not head.missing_quarantined:
        return []
    # A row whose image was missing was kept as it was, whatever the limit was by then.
    return [entry.image_uri for entry in read_entries(warehouse, head) if entry.is_missing]


def _compare(listed: pa.Table, good: pa.Table, bad: pa.Table, keeps_missing: bool) -> Comparison:
    """Return an entry for each listed object and each missing row that stays.

    Args:
        listed: the listing, as `LISTED`.
        good: the current version's features rows, as `LISTED`.
        bad: its quarantine rows, with `is_vanished` and `is_judged_again`.
        keeps_missing: whether rows of images that are no longer listed stay. Of a batch of which nothing is listed any more
            they always stay: an expired bucket does not mean that its rows are unwanted.
    """
    settled = _published(good, bad.filter(pc.invert(bad["is_judged_again"])))
    same = pc.index_in(_identity(listed), value_set=_identity(settled))
    columns = [pc.if_else(pc.is_valid(same), settled[name].take(same), listed[name]) for name in LISTED.names]
    action = pc.fill_null(settled["action"].take(same), "compute")
    current = pa.Table.from_arrays([*columns, action, pa.repeat(False, listed.num_rows)], schema=_ENTRIES)
    uris = listed["image_uri"].combine_chunks()
    published = _published(good, bad)
    gone = published.filter(pc.invert(pc.is_in(published["image_uri"], value_set=uris)))
    vanished = bad["image_uri"].filter(bad["is_vanished"]).combine_chunks()
    kept = gone.filter(pc.invert(pc.is_in(gone["image_uri"], value_set=vanished)))
    kept = kept if keeps_missing or listed.num_rows == 0 else kept.slice(0, 0)
    missing = kept.append_column("is_missing", pa.repeat(True, kept.num_rows))
    entries = pa.concat_tables([current, missing]).sort_by("image_uri").combine_chunks()
    return Comparison(entries, gone.num_rows - kept.num_rows)


def _published(good: pa.Table, bad: pa.Table) -> pa.Table:
    return pa.concat_tables([_acting(good, "keep"), _acting(bad, "keep_quarantined")])


def _acting(rows: pa.Table, action: str) -> pa.Table:
    return rows.select(LISTED.names).append_column("action", pa.repeat(action, rows.num_rows))


def _identity(rows: pa.Table) -> pa.Array:
    return row_identity(rows["etag"], rows["image_uri"]).combine_chunks()
