"""The rows of a version that are not computed: kept ones of the version before, and known contents under other keys."""

from collections import defaultdict
from datetime import datetime
from functools import lru_cache, partial

import pyarrow as pa
import pyarrow.compute as pc

from orchard_jobs.contract.jobs import StagedFile
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Action, Entry, ManifestHead, read_part, write_entries
from orchard_jobs.errors import JobError
from orchard_jobs.parquet import open_parquet, read_parquet
from orchard_jobs.schemas import row_identity
from orchard_jobs.stages.staging import OwnPaths, VersionWriter, files_from_json, files_to_json
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

# The most rows of a file that a task makes, and what it holds in memory at once. Small files become larger when they are copied.
ROWS_PER_FILE = 2048
_VECTOR = ("content_sha256", "width", "height", "features", "computed_in")


def copy_kept(
    workers: Workers, head: ManifestHead, paths: tuple[str, ...], action: Action, writer: VersionWriter
) -> tuple[StagedFile, ...]:
    """Copy the rows of published files that a manifest keeps by an action.

    Raises:
        JobError: the files do not hold each of these rows once.
    """
    groups = _groups(writer.warehouse, paths)
    files = files_from_json(workers.run(len(groups), partial(_copy_kept, head=head, groups=groups, action=action, writer=writer)))
    found, wanted = sum(file.rows for file in files), head.actions.get(action, 0)
    if found != wanted:
        raise JobError(
            f"the published files of batch {head.batch_id} hold {found} of the {wanted} rows to {action}: start a new run"
        )
    return files


def copy_vectors(
    workers: Workers, paths: tuple[str, ...], entries: list[Entry], own_paths: OwnPaths, writer: VersionWriter
) -> tuple[StagedFile, ...]:
    """Write a row for each entry, with the vector of its content from one of some features files.

    Raises:
        JobError: none of these files holds the vector of an entry's content.
    """
    warehouse = writer.warehouse
    placed = [(path, entry) for path, of_file in sorted(_by_file(warehouse, paths, entries).items()) for entry in of_file]
    shards: list[tuple[tuple[str, ...], str]] = []
    for first in range(0, len(placed), ROWS_PER_FILE):
        some = placed[first : first + ROWS_PER_FILE]
        shards.append(
            (tuple(dict.fromkeys(path for path, _ in some)), own_paths.scratch("reused", f"{len(shards):05d}.jsonl.gz"))
        )
        warehouse.create(shards[-1][1], write_entries(entry for _, entry in some))
    return files_from_json(workers.run(len(shards), partial(_copy_vectors, shards=tuple(shards), writer=writer)))


def _groups(warehouse: Warehouse, paths: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return the files in groups of at most so many rows, or of one file."""
    groups: list[list[str]] = []
    room = 0
    for path in paths:
        with open_parquet(warehouse, path) as file:
            rows = file.metadata.num_rows
        if not groups or rows > room:
            groups.append([])
            room = ROWS_PER_FILE
        groups[-1].append(path)
        room -= rows
    return tuple(map(tuple, groups))


def _copy_kept(index: int, head: ManifestHead, groups: tuple[tuple[str, ...], ...], action: Action, writer: VersionWriter) -> str:
    warehouse = writer.warehouse
    wanted = _identities(warehouse, head.digest, tuple(part.name for part in head.parts), action)
    found = []
    for path in groups[index]:
        rows = read_parquet(warehouse, path)
        found.append(rows.filter(pc.is_in(row_identity(rows["etag"], rows["image_uri"]), value_set=wanted)))
    return files_to_json(writer.write(pa.concat_tables(found, promote_options="permissive")))


@lru_cache(maxsize=2)
def _identities(warehouse: Warehouse, digest: str, parts: tuple[str, ...], action: Action) -> pa.Array:
    """Return what tells the rows apart that a manifest keeps; read once a worker process."""
    packed = (warehouse.read(manifest_path(digest, name)) for name in parts)
    entries = [(entry.etag, entry.image_uri) for part in packed for entry in read_part(part) if entry.action == action]
    etags, uris = zip(*entries, strict=True) if entries else ((), ())
    return row_identity(pa.array(etags, pa.string()), pa.array(uris, pa.string()))


def _by_file(warehouse: Warehouse, paths: tuple[str, ...], entries: list[Entry]) -> dict[str, list[Entry]]:
    """Return the entries by the first file that holds their content."""
    wanted: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        wanted[entry.content_sha256].append(entry)
    found: dict[str, list[Entry]] = {}
    for path in paths:
        if not wanted:
            break
        with open_parquet(warehouse, path) as file:
            contents = set(file.read(["content_sha256"]).column(0).to_pylist())
        here = [entry for content in sorted(wanted.keys() & contents, key=str) for entry in wanted.pop(content)]
        if here:
            found[path] = here
    if wanted:
        lost = next(iter(wanted.values()))[0]
        raise JobError(f"no file of the manifest holds content {lost.content_sha256} of {lost.image_uri!r}: start a new run")
    return found


def _copy_vectors(index: int, shards: tuple[tuple[tuple[str, ...], str], ...], writer: VersionWriter) -> str:
    warehouse, (paths, shard) = writer.warehouse, shards[index]
    entries = list(read_part(warehouse.read(shard)))
    contents = pa.array([entry.content_sha256 for entry in entries], pa.string())
    found = []
    for path in paths:
        rows = read_parquet(warehouse, path).select(_VECTOR)
        found.append(rows.filter(pc.is_in(rows["content_sha256"], value_set=contents)))
    vectors = pa.concat_tables(found, promote_options="permissive")
    rows = vectors.take(pc.index_in(contents, value_set=vectors["content_sha256"].combine_chunks()))
    for name, values in entry_columns(entries).items():
        rows = rows.append_column(name, values)
    return files_to_json(writer.write(rows))


def entry_columns(entries: list[Entry]) -> dict[str, pa.Array]:
    """Return what a row takes of its entry, a column each."""
    return {
        "image_uri": pa.array([entry.image_uri for entry in entries], pa.string()),
        "etag": pa.array([entry.etag for entry in entries], pa.string()),
        "size_bytes": pa.array([entry.size_bytes for entry in entries], pa.int64()),
        "uploaded_at": pa.array([datetime.fromisoformat(entry.uploaded_at) for entry in entries], pa.timestamp("us", tz="UTC")),
        "label": pa.array([entry.label for entry in entries], pa.string()),
    }
