"""Plan one batch: compare all of it with what is published, and freeze the difference as a manifest.

What differs is decided by key, ETag and content, never by time stamps, so late and repeated uploads are found in any order.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cached_property
from typing import Any

import pyarrow.compute as pc
from orchard_jobs.contract.manifest import MD5, Entry, ManifestHead, ModelReference, Part, is_md5, write_known, write_parts
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.storage import Warehouse

from orchard.batch.comparison import Comparison, ListingComparer
from orchard.batch.known_contents import KnownContents, find_known_contents
from orchard.batch.manifests import create_manifest, read_entries, staged_manifests
from orchard.landing_zone.listing import ListedObject
from orchard.models.kinds import CLASSIFIER, PCA, Kind
from orchard.models.model import current_model
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile
from orchard.tables.reports import job_digests, take_up

log = escaping_logger(__name__)
_ENTRIES_AT_ONCE = 10_000
# Images that may be alike are one worker's task; of more in one size, as in raw frames, each is a task's of its own.
_MOST_ALIKE = 1_000


def plan_batch(
    tables: Tables,
    settings: Settings,
    batch_id: str,
    listed: Iterable[ListedObject],
    has_false_md5: Callable[[str], bool] = lambda image_uri: False,
) -> ManifestHead | None:
    """Freeze what is to be done for a batch as a manifest in the warehouse.

    An earlier run may have staged a version, or left it half-way: in some tables, without its `runs` row. If the listing is still
    the same, that version is planned again as it is: no job runs, and publishing completes it. Otherwise a version of the next
    number supersedes it. The same holds if staged files were lost or damaged, or if a clean-up is removing them.

    Args:
        tables: the published tables; they are there.
        settings: backbone, limits, landing zone, and what happens to missing images.
        batch_id: the batch.
        listed: every object under it, in any order. Memory: about 300 bytes for each image, published or listed.
        has_false_md5: tells whether an image's ETag only looks like an MD5. Called for the newest image to compute; the answer
            counts for all of them, because a bucket encrypts them all alike.

    Returns:
        The manifest's head, or None when nothing differs: every listed (key, ETag) is in a published version, and no
        row asks to be judged again. Missing images alone make no difference, unless they are to be dropped.
    """
    view = ListingComparer.load(tables, settings, batch_id)
    versions, compared = view.versions, view.compare(batch_id, listed)
    if versions.is_complete(batch_id) and not compared.is_different:
        return None
    models = {kind: _model_of(tables, settings.backbone.id, kind) for kind in (PCA, CLASSIFIER)}
    begun = _begun(view, batch_id, compared, models)
    if begun is not None:
        return begun
    draft = _ManifestDraft.of(tables.warehouse, versions, compared, has_false_md5)
    parts = list(write_parts(draft.entries()))
    head = _head(settings, versions, batch_id, draft)
    head = replace(head, model=models[PCA], classifier=models[CLASSIFIER], parts=tuple(part for part, _ in parts))
    while not take_up(tables.warehouse, *job_digests(head)):
        head = replace(head, number=head.number + 1)
    create_manifest(tables.warehouse, head, [*parts, *([draft.known] if draft.known else [])])
    return head


def _model_of(tables: Tables, backbone: str, kind: Kind) -> ModelReference | None:
    """Return the current model of a kind; None where there is none, or its files are damaged: its DAG makes the rows later."""
    try:
        return current_model(tables, backbone, kind)
    except DamagedFileError as error:
        log.warning("the batch is planned without a model of kind %s: %s", kind.name, error)
        return None


def _head(settings: Settings, versions: BatchVersions, batch_id: str, draft: "_ManifestDraft") -> ManifestHead:
    """Return the head of a draft, still without its models and its parts."""
    compared, actions = draft.compared, draft.actions
    missing = pc.sum(compared.entries["is_missing"]).as_py() or 0
    is_bad = pc.equal(compared.entries["action"], "keep_quarantined")
    missing_quarantined = pc.sum(pc.and_(compared.entries["is_missing"], is_bad)).as_py() or 0
    return ManifestHead(
        batch_id=batch_id,
        backbone=settings.backbone,
        number=versions.highest_number(batch_id) + 1,
        model=None,
        pixel_limit=settings.images.pixel_limit,
        listed=compared.listed,
        missing=missing,
        actions=dict(sorted(actions.items())),
        features_files=_paths(versions.features_files(batch_id)) if actions.get("keep") else (),
        quarantine_files=_paths(versions.quarantine_files(batch_id)) if actions.get("keep_quarantined") else (),
        parts=(),
        missing_quarantined=missing_quarantined,
        vector_files=draft.vector_files,
        known=draft.known[0] if draft.known else None,
        object_limit=settings.images.object_limit,
        reads_heic=settings.images.reads_heic,
        unlabelled=settings.classifier.unlabelled,
    )


@dataclass(frozen=True)
class _ManifestDraft:
    """A comparison with what is known of the contents to compute: which vectors already exist, and which images may be equal.

    Attributes:
        compared: the comparison.
        pairs: ETag and size of each image to compute.
        opaque_sizes: the sizes of those whose ETag does not identify their content.
        contents: what they may be equal to.
    """

    compared: Comparison
    pairs: tuple[tuple[str, int], ...]
    opaque_sizes: frozenset[int]
    contents: KnownContents

    @classmethod
    def of(
        cls, warehouse: Warehouse, versions: BatchVersions, compared: Comparison, has_false_md5: Callable[[str], bool]
    ) -> "_ManifestDraft":
        computed = compared.entries.filter(pc.equal(compared.entries["action"], "compute"))
        pairs = tuple(zip(computed["etag"].to_pylist(), computed["size_bytes"].to_pylist(), strict=True))
        looks_like_md5 = pc.match_substring_regex(computed["etag"], f"^{MD5}$")
        asked = computed.select(["image_uri", "uploaded_at"]).filter(looks_like_md5)
        newest = pc.select_k_unstable(asked, 1, [("uploaded_at", "descending")]).to_pylist()
        is_false = any(has_false_md5(asked["image_uri"][position].as_py()) for position in newest)
        opaque = frozenset(size for etag, size in pairs if is_false or not is_md5(etag))
        contents = find_known_contents(warehouse, versions.features, versions.backbone, pairs, opaque)
        return cls(compared, pairs, opaque, contents)

    def entries(self) -> Iterator[Entry]:
        """Yield the manifest's entries, made in chunks."""
        for batch in self.compared.entries.to_batches(_ENTRIES_AT_ONCE):
            for row in batch.to_pylist():
                yield self._entry(row)

    def _entry(self, row: dict[str, Any]) -> Entry:
        entry = Entry(**{**row, "uploaded_at": row["uploaded_at"].astimezone(UTC).isoformat()})
        if entry.action != "compute":
            return entry
        content = self.contents.by_md5.get((entry.etag, entry.size_bytes))
        if content:
            return replace(entry, action="reuse", content_sha256=content[0])
        # Images that may have equal content share a group: by ETag, or by size where the ETag does not identify the content.
        is_opaque = entry.size_bytes in self.opaque_sizes and self._of_size[entry.size_bytes] <= _MOST_ALIKE
        return replace(entry, group=str(entry.size_bytes) if is_opaque else entry.etag)

    @property
    def actions(self) -> dict[str, int]:
        """The number of entries of each action that has any."""
        counts = {action: self.compared.count(action) for action in ("compute", "keep", "keep_quarantined")}
        counts["reuse"] = sum(pair in self.contents.by_md5 for pair in self.pairs)
        counts["compute"] -= counts["reuse"]
        return {action: count for action, count in counts.items() if count}

    @property
    def vector_files(self) -> tuple[str, ...]:
        """The files that hold the vectors that are reused, or may be once an image's bytes are read."""
        files = {self.contents.by_md5[pair][1] for pair in self.pairs if pair in self.contents.by_md5}
        return tuple(sorted(files | set(self._known_by_bytes.values())))

    @cached_property
    def known(self) -> tuple[Part, bytes] | None:
        """The file of the contents that only an image's bytes can show, or None."""
        return write_known(self._known_by_bytes) if self._known_by_bytes else None

    @cached_property
    def _of_size(self) -> Counter[int]:
        """The number of images to compute of each size."""
        return Counter(size for _, size in self.pairs)

    @cached_property
    def _known_by_bytes(self) -> Mapping[str, str]:
        sizes = {pair[1] for pair in self.pairs if pair not in self.contents.by_md5}
        return {content: path for size in sizes for content, path in self.contents.by_size.get(size, {}).items()}


def _begun(
    view: ListingComparer, batch_id: str, compared: Comparison, models: Mapping[Kind, ModelReference | None]
) -> ManifestHead | None:
    """Return a manifest of the same listing that can be continued: staged but not published, or published half-way."""
    versions, warehouse = view.versions, view.versions.tables.warehouse
    current = versions.current.get(batch_id)
    images = view.settings.images
    limits = (images.pixel_limit, images.object_limit, images.reads_heic)
    for head in staged_manifests(warehouse, versions.backbone, batch_id):
        if current is not None and head.number <= current.number:
            continue
        is_half_way = versions.is_half_way(batch_id, head.digest)
        is_with_them = (head.model, head.classifier) == (models[PCA], models[CLASSIFIER])
        is_next = head.number == versions.highest_number(batch_id) + 1 and is_with_them
        if (
            (is_half_way or is_next)
            and (head.pixel_limit, head.object_limit, head.reads_heic) == limits
            # A half-way version whose images are all gone since is completed as it is: missing images keep their rows.
            and (is_half_way and compared.listed == 0 or _identities_of(warehouse, head) == compared.identities)
            and take_up(warehouse, *job_digests(head))
        ):
            return head
    return None


def _identities_of(warehouse: Warehouse, head: ManifestHead) -> set[tuple[str, str, bool]]:
    return {(entry.image_uri, entry.etag, entry.is_missing) for entry in read_entries(warehouse, head)}


def _paths(files: Iterable[TableFile]) -> tuple[str, ...]:
    return tuple(sorted(file.path for file in files))
