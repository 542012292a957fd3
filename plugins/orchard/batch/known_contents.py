"""Find images whose vector already exists: published, replaced, or staged by a finished job.

A content goes through a backbone once. So planning looks for it in every features file that a finished report or the table's log
names and that still exists.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.jobs import StagedFile
from orchard_jobs.contract.layout import StagedPath, parse, partition_folder
from orchard_jobs.contract.manifest import MD5, is_md5
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import Warehouse

from orchard.tables.delta_log import Snapshot
from orchard.tables.reports import finished_report

log = escaping_logger(__name__)
_FILES_AT_ONCE = 8


@dataclass(frozen=True)
class KnownContents:
    """The contents that a plan may reuse: each is a SHA-256, with the file that holds its vector.

    Attributes:
        by_md5: by (MD5, size), where the ETags of both images show that they are alike.
        by_size: by size, where only an image's bytes can show it.
    """

    by_md5: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    by_size: dict[int, dict[str, str]] = field(default_factory=dict)


def find_known_contents(
    warehouse: Warehouse, features: Snapshot, backbone: str, wanted: Iterable[tuple[str, int]], opaque_sizes: frozenset[int]
) -> KnownContents:
    """Return the known contents that images of some (ETag, size) may have.

    Args:
        warehouse: where the files lie.
        features: the features table; its files come first, because they stay longest.
        backbone: the backbone's id.
        wanted: ETag and size of each image.
        opaque_sizes: the sizes of those whose ETag does not identify their content.
    """
    sought = _Sought.of(wanted, opaque_sizes)
    found = KnownContents()
    if not (sought.md5s or sought.sizes):
        return found
    current = [file.path for file in features.files(backbone=backbone)]
    others = _other_files(warehouse, backbone, frozenset(current))
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        hits = pool.map(lambda path: (path, _hits(warehouse, path, sought)), current)
        others_hits = pool.map(lambda file: (file.path, _unharmed_hits(warehouse, file, sought)), others)
        for path, rows in chain(hits, others_hits):
            _take(found, sought, path, rows)
    return found


@dataclass(frozen=True)
class _Sought:
    md5s: frozenset[str]
    sizes: frozenset[int]
    opaque_sizes: frozenset[int]

    @classmethod
    def of(cls, wanted: Iterable[tuple[str, int]], opaque_sizes: frozenset[int]) -> "_Sought":
        pairs = set(wanted)
        return cls(frozenset(etag for etag, _ in pairs if is_md5(etag)), frozenset(size for _, size in pairs), opaque_sizes)

    def among(self, rows: pa.Table) -> pa.Table:
        """Return the rows that some wanted image may be equal to."""
        is_opaque = pc.invert(pc.match_substring_regex(rows["etag"], f"^{MD5}$"))
        by_md5 = pc.is_in(rows["etag"], pa.array(sorted(self.md5s), pa.string()))
        by_size = pc.is_in(rows["size_bytes"], pa.array(sorted(self.opaque_sizes), pa.int64()))
        by_row = pc.and_(is_opaque, pc.is_in(rows["size_bytes"], pa.array(sorted(self.sizes), pa.int64())))
        return rows.filter(pc.or_(by_md5, pc.or_(by_size, by_row)))


def _take(found: KnownContents, sought: _Sought, path: str, rows: pa.Table) -> None:
    for row in rows.to_pylist():
        etag, size_bytes, content = row["etag"], row["size_bytes"], row["content_sha256"]
        if is_md5(etag):
            found.by_md5.setdefault((etag, size_bytes), (content, path))
        if size_bytes in sought.opaque_sizes or not is_md5(etag):
            found.by_size.setdefault(size_bytes, {}).setdefault(content, path)


def _read_columns(warehouse: Warehouse, path: str) -> pa.Table:
    with open_parquet(warehouse, path) as file:
        return file.read(columns=["etag", "size_bytes", "content_sha256"])


def _hits(warehouse: Warehouse, path: str, sought: _Sought) -> pa.Table:
    """Return the wanted rows of a published file; none if it is damaged, so that it does not stop other batches."""
    try:
        return sought.among(_read_columns(warehouse, path))
    except DamagedFileError as error:
        log.warning("no vector is reused from a damaged file: %s", error)
        return pa.table({})


def _unharmed_hits(warehouse: Warehouse, file: StagedFile, sought: _Sought) -> pa.Table:
    """Return the wanted rows of a file that nothing has audited, or whose audit is long past; none when it is damaged."""
    try:
        rows = sought.among(_read_columns(warehouse, file.path))
    except DamagedFileError:
        return pa.table({})
    return rows if not rows.num_rows or warehouse.sha256(file.path) == file.sha256 else rows.slice(0, 0)


def _other_files(warehouse: Warehouse, backbone: str, current: frozenset[str]) -> Iterator[StagedFile]:
    """Yield every other intact features file that a finished report names: replaced, or staged and not published."""
    staged = cache(lambda work: _named_by_report(warehouse, work))
    for path, size_bytes in sorted(warehouse.list(partition_folder(FEATURES, (backbone,)))):
        known = None if path in current else parse(path)
        named = staged(known.work).get(path) if isinstance(known, StagedPath) and known.work else None
        if named is not None and named.size_bytes == size_bytes:
            yield named


def _named_by_report(warehouse: Warehouse, work: str) -> dict[str, StagedFile]:
    try:
        report = finished_report(warehouse, work)
    except DamagedFileError as error:
        log.warning("no vector is reused of damaged work: %s", error)
        return {}
    staged = report.of_table(FEATURES.name) if report else ()
    return {file.path: file for partition in staged for file in partition.files}
