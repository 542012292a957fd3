"""Plan one batch: list all of it, compare it with what is published, and freeze the difference as a manifest.

What differs is decided by key, ETag and content, never by time stamps, so late and repeated uploads are found in any order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import Stage
from orchard_jobs.contract.layout import MANIFESTS, checked_batch_id, image_uri, label_of, manifest_folder
from orchard_jobs.contract.manifest import Entry, ManifestHead, is_md5, read_part, write_parts
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.errors import ConfigurationError

from orchard.models import current_model
from orchard.reports import is_sound
from orchard.settings import Settings
from orchard.tables import Tables, digest_prefix_in, number_in
from orchard.versions import current_version, highest_number, key_of

_ROW = ("image_uri", "etag", "size_bytes", "uploaded_at", "label")
_KEPT = ("keep", "keep_quarantined")
Rows = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class ListedObject:
    """One object under a batch, as the store lists it."""

    key: str
    etag: str
    size_bytes: int
    uploaded_at: datetime


def checked_partition_key(partition_key: str | None, key_format: str) -> str:
    """Return a run's partition key as a batch id.

    Raises:
        ConfigurationError: the run has no key, or one of another format; it says how to start a run.
    """
    if partition_key is None:
        raise ConfigurationError(
            "this run has no partition key, so it names no batch: start it with one, in the UI under Trigger > Partition key, "
            'or by POST dagRuns {"partition_key": "2026-01-31", "logical_date": null}'
        )
    try:
        datetime.strptime(partition_key, key_format).replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigurationError(
            f"partition key {partition_key!r} is not of the form {key_format!r}: {error}; start the run with another key, "
            "or set ORCHARD_BATCH_KEY_FORMAT"
        ) from error
    return checked_batch_id(partition_key)


def list_batch(client: Any, bucket: str, prefix: str) -> Iterator[ListedObject]:
    """Yield every image object below a prefix, page by page.

    Args:
        client: a boto3 S3 client.
        bucket: the landing bucket.
        prefix: key prefix of the batch, ending in `/`.
    """
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from objects_of(page)


def objects_of(page: Mapping[str, Any]) -> Iterator[ListedObject]:
    """Yield the image objects of one page of a listing; keys that end in `/` are no images."""
    for item in page.get("Contents", ()):
        if not item["Key"].endswith("/"):
            yield ListedObject(item["Key"], item["ETag"].strip('"'), item["Size"], item["LastModified"].astimezone(UTC))


def plan_batch(tables: Tables, settings: Settings, batch_id: str, listed: Iterable[ListedObject]) -> ManifestHead | None:
    """Freeze what is to be done for a batch as a manifest in the warehouse.

    A version that an earlier run left half-way (in some tables, without its `runs` row) is planned again as it is when the
    listing is still the same, so that its publish rolls forward; otherwise it is superseded by the next number. A manifest whose
    staged files were lost or damaged is planned anew under the next number.

    Args:
        tables: the published tables; they are there.
        settings: backbone, pixel limit and landing zone.
        batch_id: the batch.
        listed: every object under it.

    Returns:
        The manifest's head, or None when nothing differs: every listed (key, ETag) stands in a published version, and no
        row asks to be judged again. Missing images alone make no difference.
    """
    backbone = settings.backbone
    good = {row["image_uri"]: row for row in tables.rows(FEATURES, _ROW, backbone=backbone.id, batch_id=batch_id)}
    bad = _quarantined(tables, backbone.id, batch_id, settings.pixel_limit)
    entries = list(_compare(good, bad, listed, settings, batch_id))
    model = current_model(tables, backbone.id)
    highest = highest_number(tables, backbone.id, batch_id, model.model_id if model else None)
    current = current_version(tables, backbone.id, batch_id)
    is_whole = highest == (current.number if current else 0)
    if is_whole and all(entry.action in _KEPT for entry in entries):
        return None
    if not is_whole:
        half_way = _half_way(tables, backbone.id, batch_id, highest)
        if (
            half_way is not None
            and _is_usable(tables, half_way)
            and _listing_of(read_entries(tables, half_way)) == _listing_of(entries)
        ):
            return half_way
    entries, reused_files = _with_reuse(tables, backbone.id, _with_groups(entries))
    entries.sort(key=lambda entry: entry.image_uri)
    parts = list(write_parts(entries))
    head = _head(tables, settings, batch_id, entries, reused_files)
    head = replace(head, number=highest + 1, model=model, parts=tuple(part for part, _ in parts))
    while not _is_usable(tables, head):
        head = replace(head, number=head.number + 1)
    folder = manifest_folder(head.digest)
    for part, packed in parts:
        tables.warehouse.create(f"{folder}/{part.name}", packed)
    tables.warehouse.create(f"{folder}/head.json", head.to_json().encode())
    return head


def _head(tables: Tables, settings: Settings, batch_id: str, entries: list[Entry], reused_files: set[str]) -> ManifestHead:
    """Return the head of these entries, still without its number, its model and its parts."""
    backbone = settings.backbone
    missing = [entry for entry in entries if entry.is_missing]
    actions = Counter(entry.action for entry in entries)
    own = {
        table: tuple(f.path for f in tables.load(table).files(backbone=backbone.id, batch_id=batch_id))
        for table in (FEATURES, QUARANTINE)
    }
    own_features = own[FEATURES] if actions["keep"] else ()
    own_quarantine = own[QUARANTINE] if actions["keep_quarantined"] else ()
    return ManifestHead(
        batch_id=batch_id,
        backbone=backbone,
        number=0,
        model=None,
        pixel_limit=settings.pixel_limit,
        listed=len(entries) - len(missing),
        missing=len(missing),
        actions=dict(sorted(actions.items())),
        features_files=tuple(sorted({*own_features, *reused_files})),
        quarantine_files=own_quarantine,
        parts=(),
        missing_quarantined=sum(entry.action == "keep_quarantined" for entry in missing),
    )


def _is_usable(tables: Tables, head: ManifestHead) -> bool:
    """Tell whether a manifest's work is not begun, or finished with every staged file unharmed."""
    stages: tuple[Stage, ...] = ("featurize", "reduce")
    return all(is_sound(tables.warehouse, work_digest(head.digest, head.backbone.id, stage)) for stage in stages)


def read_head(tables: Tables, digest: str) -> ManifestHead:
    """Return the head of a manifest; JobError when it is not there."""
    return ManifestHead.from_json(tables.warehouse.read(f"{manifest_folder(digest)}/head.json"))


def read_entries(tables: Tables, head: ManifestHead) -> Iterator[Entry]:
    """Yield a manifest's entries, sorted by URI."""
    for part in head.parts:
        yield from read_part(tables.warehouse.read(f"{manifest_folder(head.digest)}/{part.name}"))


def _quarantined(tables: Tables, backbone: str, batch_id: str, pixel_limit: int) -> Rows:
    """Return the published quarantine rows by URI, each with whether it is to be judged again."""
    rows = {}
    limits: dict[str, int] = {}
    for row in tables.rows(QUARANTINE, (*_ROW, "reason", "manifest_digest"), backbone=backbone, batch_id=batch_id):
        digest = row["manifest_digest"]
        if row["reason"] == Reason.OVER_PIXEL_LIMIT and digest not in limits:
            limits[digest] = read_head(tables, digest).pixel_limit
        is_judged_again = row["reason"] == Reason.VANISHED or (
            row["reason"] == Reason.OVER_PIXEL_LIMIT and limits[digest] < pixel_limit
        )
        rows[row["image_uri"]] = {**row, "is_judged_again": is_judged_again}
    return rows


def _compare(good: Rows, bad: Rows, listed: Iterable[ListedObject], settings: Settings, batch_id: str) -> Iterator[Entry]:
    """Yield an entry for each listed object, and one for each published row that is no longer listed."""
    prefix = settings.batch_prefix(batch_id)
    seen = set()
    for item in listed:
        uri = image_uri(settings.bucket, item.key)
        seen.add(uri)
        if uri in good and good[uri]["etag"] == item.etag:
            yield _kept(good[uri], "keep")
        elif uri in bad and bad[uri]["etag"] == item.etag and not bad[uri]["is_judged_again"]:
            yield _kept(bad[uri], "keep_quarantined")
        else:
            label = label_of(item.key, prefix)
            yield Entry(uri, item.etag, item.size_bytes, item.uploaded_at.isoformat(), label, "compute")
    for uri in good.keys() - seen:
        yield replace(_kept(good[uri], "keep"), is_missing=True)
    for uri in bad.keys() - good.keys() - seen:
        if bad[uri]["reason"] != Reason.VANISHED:
            yield replace(_kept(bad[uri], "keep_quarantined"), is_missing=True)


def _kept(row: dict[str, Any], action: Any) -> Entry:
    uploaded_at = row["uploaded_at"].astimezone(UTC).isoformat()
    return Entry(row["image_uri"], row["etag"], row["size_bytes"], uploaded_at, row["label"], action)


def _half_way(tables: Tables, backbone: str, batch_id: str, number: int) -> ManifestHead | None:
    """Return the manifest of the version that was left half-way under a number, or None when it is not to be found.

    It is known by what the tables' commits say, not by rows: a version may have none in a table.
    """
    key = key_of(backbone, batch_id)
    snapshots = [tables.load(table) for table in (QUARANTINE, FEATURES)]
    prefixes = {digest_prefix_in(snapshot, key) for snapshot in snapshots if number_in(snapshot, key) == number}
    for digest in tables.warehouse.folders(MANIFESTS):
        if digest[:15] in prefixes:
            return read_head(tables, digest)
    return None


def _listing_of(entries: Iterable[Entry]) -> set[tuple[str, str]]:
    return {(entry.image_uri, entry.etag) for entry in entries if not entry.is_missing}


def _with_groups(entries: list[Entry]) -> list[Entry]:
    """Put images that may have equal content into one group: by ETag, or by size where an ETag does not tell."""
    opaque = {entry.size_bytes for entry in entries if entry.action == "compute" and not is_md5(entry.etag)}
    return [
        replace(entry, group=str(entry.size_bytes) if entry.size_bytes in opaque else entry.etag)
        if entry.action == "compute"
        else entry
        for entry in entries
    ]


def _with_reuse(tables: Tables, backbone: str, entries: list[Entry]) -> tuple[list[Entry], set[str]]:
    """Let images of known content (same MD5 and size, in any batch) reuse its vector; return the files that hold them too."""
    wanted = {entry.etag for entry in entries if entry.action == "compute" and is_md5(entry.etag)}
    known: dict[tuple[str, int], tuple[str, str]] = {}
    for path in [f.path for f in tables.load(FEATURES).files(backbone=backbone)] if wanted else ():
        with tables.warehouse.open(path) as file:
            rows = pq.read_table(file, columns=["etag", "size_bytes", "content_sha256"])
        hits = rows.filter(pc.is_in(rows["etag"], pa.array(sorted(wanted), pa.string())))
        for row in hits.to_pylist():
            known.setdefault((row["etag"], row["size_bytes"]), (row["content_sha256"], path))
    result, files = [], set()
    for entry in entries:
        hit = known.get((entry.etag, entry.size_bytes)) if entry.action == "compute" and is_md5(entry.etag) else None
        if hit:
            result.append(replace(entry, action="reuse", group="", content_sha256=hit[0]))
            files.add(hit[1])
        else:
            result.append(entry)
    return result, files
