"""Manifests in the warehouse: written once, read back, and found again by what their jobs staged."""

from collections.abc import Iterable, Iterator

from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, Part, read_part
from orchard_jobs.storage import Warehouse

from orchard.tables.reports import finished_report, parsed


def create_manifest(warehouse: Warehouse, head: ManifestHead, files: Iterable[tuple[Part, bytes]]) -> None:
    """Write a manifest's files, its head last; one that is there stays as it is."""
    for part, packed in files:
        warehouse.create(manifest_path(head.digest, part.name), packed)
    warehouse.create(manifest_path(head.digest), head.to_json().encode())


def read_head(warehouse: Warehouse, digest: str) -> ManifestHead:
    """Return the head of a manifest; JobError when it is not there."""
    path = manifest_path(digest)
    return parsed(warehouse, path, warehouse.read(path), ManifestHead.from_json)


def read_entries(warehouse: Warehouse, head: ManifestHead) -> Iterator[Entry]:
    """Yield a manifest's entries, sorted by URI."""
    for part in head.parts:
        yield from read_part(warehouse.read(manifest_path(head.digest, part.name)))


def staged_manifests(warehouse: Warehouse, backbone: str, batch_id: str) -> Iterator[ManifestHead]:
    """Yield the head of each manifest of a batch whose featurize job has finished, published or not."""
    folders = [f"{table.name}/backbone={backbone}/batch_id={batch_id}" for table in (FEATURES, QUARANTINE)]
    for work in sorted({work for folder in folders for work in warehouse.folders(folder)}):
        report = finished_report(warehouse, work)
        if report is not None:
            yield read_head(warehouse, report.input_digest)
