"""The recorded SHA-256 of every file that a table names: in its name, or else in a file of records.

Staged files are named by their content. What is not (a model's file, files and logs of earlier releases) is recorded before its
commit, or when it is verified for the first time.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

from orchard_jobs.contract.digests import canonical_json, sha256_in
from orchard_jobs.contract.jobs import StagedFile
from orchard_jobs.contract.layout import CHECKSUMS, ChecksumsPath, parse
from orchard_jobs.contract.locations import is_below
from orchard_jobs.storage import Warehouse

from orchard.tables.reports import parsed


def record_unnamed(warehouse: Warehouse, files: Iterable[StagedFile]) -> None:
    """Record the SHA-256 of those files whose names do not contain it."""
    record_checksums(warehouse, {file.path: file.sha256 for file in files if sha256_in(file.path) is None})


def record_checksums(warehouse: Warehouse, found: dict[str, str]) -> None:
    """Record the SHA-256 of some files by path, all in one file; twice the same does no harm."""
    if found:
        text = canonical_json(found).encode()
        warehouse.create(str(ChecksumsPath(hashlib.sha256(text).hexdigest())), text)


def forget(warehouse: Warehouse, folder: str) -> None:
    """Forget what was recorded of the files below a folder, because new ones get the same names."""
    for path, held in list(_records(warehouse)):
        left = {name: sha256 for name, sha256 in held.items() if not is_below(name, folder)}
        if left != held:
            record_checksums(warehouse, left)
            warehouse.delete(path)


def recorded(warehouse: Warehouse) -> dict[str, frozenset[str]]:
    """Return by path what was recorded: several where a model was fitted again under its id."""
    found: dict[str, set[str]] = {}
    for _, held in _records(warehouse):
        for name, sha256 in held.items():
            found.setdefault(name, set()).add(sha256)
    return {path: frozenset(values) for path, values in found.items()}


def _records(warehouse: Warehouse) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each file of records: its path, and the SHA-256 by path that it holds."""
    for path, _ in warehouse.list(CHECKSUMS):
        if isinstance(parse(path), ChecksumsPath):
            yield path, parsed(warehouse, path, warehouse.read(path), json.loads)
