"""A small sound batch version, staged as a job stages it, for tests to damage in one place."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.audit.verdict import Verdict
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS
from orchard_jobs.contract.columns import FEATURES, MOMENTS, PCA_FEATURES, QUARANTINE, Table
from orchard_jobs.contract.jobs import Captured, JobReport, StagedFile, StagedPartition
from orchard_jobs.contract.layout import manifest_path, staged_path
from orchard_jobs.contract.manifest import Action, Entry, ManifestHead, ModelReference, write_known, write_parts
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

BACKBONE = replace(backbone_named("efficientnet_lite0"), dimension=8)
MODEL = ModelReference("model-1", "models/model-1.parquet", k=3)
BATCH_ID = "2026-01-05"
WORK, PROCESS = "1" * 64, "0123456789abcdef"
UPLOADED_AT = datetime(2026, 1, 5, tzinfo=UTC)
ACTIONS: tuple[Action, ...] = (
    *("compute", "compute", "compute", "compute", "compute", "compute"),
    *("keep", "reuse", "compute", "keep_quarantined", "keep", "keep_quarantined"),
)
BAD, MISSING, DUPLICATE = {8, 9, 11}, {10, 11}, 5
OTHER_LABELS = {1: None, 2: "Pear", 3: "Pear"}
COUNTS = {"listed": 10, "featurized": 5, "reused": 3, "quarantined": 2, "missing": 2, "network_runs": 5}
Row = dict[str, Any]
FILE_LEVEL = {"report", "manifest", "files", "schema", "rows"}


ROW_LEVEL = {
    "not_null",
    "manifest_digest",
    "provenance",
    "content_sha256",
    "vector_length",
    "finite",
    "not_zero",
    "image_size",
    "reason",
    "unique_uri",
    "keys",
    "listing",
    "actions",
    "computed_in",
    "equal_content",
    "moments",
    "class_moments",
    "pca_rows",
    "captured",
    "counts",
    "quarantined_share",
}


ALL_CHECKS = FILE_LEVEL | ROW_LEVEL


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def uri_of(i: int) -> str:
    return f"s3://landing/images/{BATCH_ID}/Apple Red 1/é#%\u2028 {i}.jpg"


def content_of(i: int) -> str:
    return sha256(str(i - 1 if i == DUPLICATE else i))


def entry_of(i: int) -> Entry:
    content = content_of(i) if ACTIONS[i] == "reuse" else None
    uploaded_at = UPLOADED_AT.isoformat()
    label = OTHER_LABELS.get(i, "Apple Red 1")
    return Entry(uri_of(i), f"etag{i}", 100 + i, uploaded_at, label, ACTIONS[i], "", content, i in MISSING)


def features_row(i: int, digest: str) -> Row:
    entry, content = entry_of(i), content_of(i)
    return {
        "image_uri": entry.image_uri,
        "etag": entry.etag,
        "size_bytes": entry.size_bytes,
        "uploaded_at": UPLOADED_AT,
        "content_sha256": content,
        "label": entry.label,
        "width": 100,
        "height": 80,
        "features": np.random.default_rng(int(content[:8], 16)).normal(size=8).astype(np.float32).tolist(),
        "manifest_digest": digest,
        "computed_in": digest if entry.action == "compute" else sha256("an earlier manifest"),
        "jobs_version": "0.1.0",
    }


def quarantine_row(i: int, digest: str) -> Row:
    row = features_row(i, digest)
    kept = {name: row[name] for name in QUARANTINE.column_names if name in row}
    return kept | {
        "content_sha256": None if i == 9 else row["content_sha256"],
        "reason": "truncated",
        "message": "ends early",
    }


def class_moments_of(features: list[Row], digest: str) -> Row:
    """Return the row of class moments of all labelled rows, each label summed up by itself."""
    labels = sorted({row["label"] for row in features} - {None})
    rows = [np.array([row["features"] for row in features if row["label"] == label], np.float64) for label in labels]
    roots = [np.sqrt(np.maximum(one, 0)) for one in rows]
    scatter = sum(((one - one.mean(axis=0)).T @ (one - one.mean(axis=0)) for one in roots), np.zeros((8, 8)))
    return {
        "manifest_digest": digest,
        "unlabelled": [],
        "labels": labels,
        "counts": list(map(len, roots)),
        "means": [float(value) for one in roots for value in one.mean(axis=0)],
        "scatter": scatter[np.triu_indices(8)].tolist(),
    }


def pca_row(features: Row) -> Row:
    return {name: features.get(name) for name in PCA_FEATURES.column_names} | {"pca_features": features["features"][:3]}


@dataclass
class StagedBatch:
    """The rows and the report of one batch version, before they are written."""

    head: ManifestHead
    parts: list[tuple[str, bytes]]
    features: list[Row]
    quarantine: list[Row]
    pca: list[Row]
    moments: list[Row] = field(default_factory=list)
    class_moments: list[Row] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    captured: Callable[[Captured], tuple[Captured, ...]] = lambda captured: (captured,)

    @classmethod
    def sound(cls, indices: range = range(12), backbone: Backbone = BACKBONE) -> "StagedBatch":
        parts = list(write_parts(entry_of(i) for i in indices))
        listed, missing = len(set(indices) - MISSING), len(set(indices) & MISSING)
        described = tuple(part for part, _ in parts)
        head = ManifestHead(BATCH_ID, backbone, 1, MODEL, 10**8, listed, missing, {}, (), (), described)
        features = [features_row(i, head.digest) for i in indices if i not in BAD]
        quarantine = [quarantine_row(i, head.digest) for i in indices if i in BAD]
        packed = [(part.name, content) for part, content in parts]
        return cls(head, packed, features, quarantine, [pca_row(row) for row in features])

    def with_moments(self) -> "StagedBatch":
        """Add the rows of moments and of class moments, and return this batch."""
        rows = np.array([row["features"] for row in self.features])
        centred = rows - rows.mean(axis=0)
        triangle = (centred.T @ centred)[np.triu_indices(8)]
        mean = rows.mean(axis=0).tolist()
        digest = self.head.digest
        self.moments = [{"manifest_digest": digest, "n": len(rows), "mean": mean, "second_moment": triangle.tolist()}]
        self.class_moments = [class_moments_of(self.features, digest)]
        return self

    def write(self, folder: Path) -> tuple[Warehouse, JobReport, JobReport]:
        """Write the manifest and the files; return the warehouse and both reports."""
        warehouse = Warehouse.at(str(folder))
        for name, packed in self.parts:
            warehouse.create(manifest_path(self.head.digest, name), packed)
        backbone = self.head.backbone.id
        partition = (backbone, BATCH_ID)
        staged = [self._stage(warehouse, table, partition, rows) for table, rows in self._tables()]
        base = JobReport(WORK, "featurize", self.head.digest, backbone, "0.1.0", "app-1", tuple(staged), self.counts)
        pca = self._stage(warehouse, PCA_FEATURES, (MODEL.model_id, BATCH_ID), self.pca)
        captured = self.captured(Captured(MODEL.model_id, BATCH_ID, self.head.digest, len(self.pca), 10.0, 9.0))
        return warehouse, base, replace(base, stage="reduce", partitions=(pca,), counts={}, captured=captured)

    def _tables(self) -> list[tuple[Table, list[Row]]]:
        caches = [(table, rows) for table, rows in ((MOMENTS, self.moments), (CLASS_MOMENTS, self.class_moments)) if rows]
        return [(FEATURES, self.features), (QUARANTINE, self.quarantine), *caches]

    def _stage(self, warehouse: Warehouse, table: Table, partition: tuple[str, ...], rows: list[Row]) -> StagedPartition:
        middle = (len(rows) + 1) // 2
        halves = [half for half in (rows[:middle], rows[middle:]) if half]
        schema = self.schemas.get(table.name, nullable(arrow_schema(table)))
        paths = [staged_path(table, partition, WORK, PROCESS, f"{i}.parquet") for i in range(len(halves))]
        files = (stage(warehouse, path, schema, half) for path, half in zip(paths, halves, strict=True))
        return StagedPartition(table.name, partition, tuple(files))


def nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([column.with_nullable(True) for column in schema])


def stage(warehouse: Warehouse, path: str, schema: pa.Schema, rows: list[Row]) -> StagedFile:
    target = Path(warehouse.uri.removeprefix("file://")) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), target)
    return StagedFile(path, target.stat().st_size, len(rows), warehouse.sha256(path))


def judge(batch: StagedBatch, folder: Path, policy: AuditPolicy | None = None) -> Verdict:
    warehouse, featurize, reduce = batch.write(folder)
    return audit_batch(warehouse, batch.head, featurize, reduce, policy or AuditPolicy())


def failed(verdict: Verdict) -> set[str]:
    return {failure.check for failure in verdict.failures}


Damage = Callable[[StagedBatch], object]


def name_known(*indices: int) -> Damage:
    """Name contents as known after the rows were made, and stamp the rows with the new manifest."""

    def damage(batch: StagedBatch) -> None:
        part, packed = write_known(content_of(i) for i in indices)
        before, batch.head = batch.head.digest, replace(batch.head, known=part)
        batch.parts.append((part.name, packed))
        for row in [*batch.features, *batch.quarantine, *batch.pca]:
            row["manifest_digest"] = batch.head.digest
            if row.get("computed_in") == before:
                row["computed_in"] = batch.head.digest

    return damage


def take_another_jobs_vector(batch: StagedBatch) -> None:
    batch.features[0]["computed_in"] = sha256("an earlier manifest")
    batch.counts.update(featurized=4, reused=4)
