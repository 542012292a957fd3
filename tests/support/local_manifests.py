"""Manifests of local image files, as plan_batch would freeze them; the Airflow side is not installed here."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, write_known, write_parts
from orchard_jobs.storage import Warehouse


def entry_of(path: Path, **changes: Any) -> Entry:
    content = path.read_bytes() if path.exists() else b""
    etag = hashlib.md5(content).hexdigest()
    entry = Entry(
        f"file://{path}", etag, len(content), "2026-01-01T12:00:00.000001+00:00", path.parent.name, "compute", group=etag
    )
    return replace(entry, **changes)


def freeze(warehouse: Warehouse, backbone: Backbone, entries: list[Entry], **changes: Any) -> ManifestHead:
    entries = sorted(entries, key=lambda entry: entry.image_uri)
    parts = list(write_parts(entries))
    known = write_known(changes.pop("known")) if "known" in changes else None
    missing = [entry for entry in entries if entry.is_missing]
    head = ManifestHead(
        batch_id=changes.pop("batch_id", "2026-01-01"),
        backbone=backbone,
        number=changes.pop("number", 1),
        model=changes.pop("model", None),
        classifier=changes.pop("classifier", None),
        pixel_limit=50_000_000,
        listed=len(entries) - len(missing),
        missing=len(missing),
        actions=dict(Counter(entry.action for entry in entries)),
        features_files=changes.pop("features_files", ()),
        quarantine_files=changes.pop("quarantine_files", ()),
        parts=tuple(part for part, _ in parts),
        vector_files=changes.pop("vector_files", ()),
        known=known[0] if known else None,
        missing_quarantined=sum(entry.action == "keep_quarantined" for entry in missing),
    )
    assert not changes
    for part, packed in [*parts, *([known] if known else [])]:
        warehouse.create(manifest_path(head.digest, part.name), packed)
    warehouse.create(manifest_path(head.digest), head.to_json().encode())
    return head


def rows_of(warehouse: Warehouse, report: JobReport, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for partition in report.of_table(table):
        for file in partition.files:
            found += pq.ParquetFile(warehouse.open(file.path)).read().to_pylist()
    return found


def files_of(report: JobReport, table: str) -> tuple[str, ...]:
    return tuple(file.path for partition in report.of_table(table) for file in partition.files)
