"""Lost rows that a repair can rebuild from other tables and files."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from orchard_jobs import __version__
from orchard_jobs.classifier.labelled_rows import to_columns
from orchard_jobs.contract.columns import CAPTURED, FEATURES, MODEL_RUNS, MODELS, PCA_FEATURES, PROMOTIONS, QUARANTINE, RUNS
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.contract.layout import MANIFESTS, ManifestPath, ModelPath, parse
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.pca.coordinates import VarianceTally
from orchard_jobs.pca.moments import Moments

from orchard.maintenance.verify import Damage
from orchard.models.kinds import KINDS, Kind
from orchard.models.merged_moments import class_moments_of, feature_chunks
from orchard.models.model import read_model
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions, version_key
from orchard.tables.commit_rule import Change, CommitState, Tables, version_number_in
from orchard.tables.reports import parsed

_BY = "restored by `orchard repair`"


def moments_row(tables: Tables, settings: Settings, damage: Damage) -> dict[str, Any] | None:
    """Return the moments of a batch's current version, from its features; None when it has none.

    Raises:
        DamagedFileError: its features are damaged, too.
    """
    version = _version_with_rows(tables, damage)
    if version is None:
        return None
    moments = Moments.of_chunks(feature_chunks(tables.warehouse, version))
    columns = {"n": moments.n, "mean": moments.mean, "second_moment": moments.upper_triangle}
    return {"manifest_digest": version.manifest_digest} | columns


def class_moments_row(tables: Tables, settings: Settings, damage: Damage) -> dict[str, Any] | None:
    """Return the class moments of a batch's current version with the settings' labels, from its features; None when it has none.

    Raises:
        DamagedFileError: its features are damaged, too.
    """
    version, unlabelled = _version_with_rows(tables, damage), settings.classifier.unlabelled
    if version is None:
        return None
    (row,) = pa.table(to_columns(class_moments_of(tables.warehouse, version, unlabelled))).to_pylist()
    return {**row, "manifest_digest": version.manifest_digest, "unlabelled": list(unlabelled)}


def _version_with_rows(tables: Tables, damage: Damage) -> BatchVersion | None:
    backbone, batch_id = damage.partition
    published = BatchVersions.load(tables, backbone, batch_id).readable()
    return next((version for version in published if version.files), None)


def run_row(tables: Tables, settings: Settings, damage: Damage) -> dict[str, Any] | None:
    """Return the `runs` row of the version that a batch's features and quarantine rows belong to.

    None if no manifest describes that version, or if the lost row was an earlier version's.

    Raises:
        DamagedFileError: rows that it counts are damaged, too.
    """
    backbone, batch_id = damage.partition
    snapshots = {table: tables.load(table) for table in (FEATURES, QUARANTINE, PCA_FEATURES)}
    head = next((head for head in _heads(tables, backbone, batch_id) if _is_in(snapshots[FEATURES], backbone, head)), None)
    others = (file for file in tables.load(RUNS).files(backbone=backbone, batch_id=batch_id) if file.path != damage.path)
    if head is None or any(row["version"] >= head.number for row in tables.rows_of(others, ("version",))):
        return None
    model = head.model if head.model and _is_in(snapshots[PCA_FEATURES], head.model.model_id, head) else None
    return {
        "manifest_digest": head.digest,
        "run_id": "orchard repair",
        "version": head.number,
        **_counts(tables, head),
        "model_id": model.model_id if model else None,
        "target": settings.jobs.target,
        "engine": head.backbone.engine,
        "job_ids": [],
        "jobs_version": __version__,
        "features_version": snapshots[FEATURES].version,
        "quarantine_version": snapshots[QUARANTINE].version,
        "pca_version": snapshots[PCA_FEATURES].version if model else None,
        "audit_verdict": _BY,
        "featurize_seconds": 0.0,
        "reduce_seconds": None,
        "published_at": datetime.now(UTC),
    }


def _is_in(snapshot: Any, scope: str, head: ManifestHead) -> bool:
    change = Change(version_key(scope, head.batch_id), head.number, head.digest)
    return change.state_in(snapshot) is CommitState.DONE


def _heads(tables: Tables, backbone: str, batch_id: str) -> Iterator[ManifestHead]:
    for path, _ in tables.warehouse.list(MANIFESTS):
        known = parse(path)
        if isinstance(known, ManifestPath) and known.is_head:
            head = parsed(tables.warehouse, path, tables.warehouse.read(path), ManifestHead.from_json)
            if (head.backbone.id, head.batch_id) == (backbone, batch_id):
                yield head


def _counts(tables: Tables, head: ManifestHead) -> dict[str, int]:
    where = {"backbone": head.backbone.id, "batch_id": head.batch_id}
    computed = [row["computed_in"] for row in tables.rows(FEATURES, ("computed_in", "content_sha256"), **where)]
    contents = {
        row["content_sha256"]
        for row in tables.rows(FEATURES, ("computed_in", "content_sha256"), **where)
        if row["computed_in"] == head.digest
    }
    quarantined = sum(1 for _ in tables.rows(QUARANTINE, ("reason",), **where)) - head.missing_quarantined
    good = len(computed) - head.missing_good
    return {
        "listed": head.listed,
        "featurized": len(contents),
        "reused": good - len(contents),
        "quarantined": quarantined,
        "missing": head.missing,
        "network_runs": len(contents) * len(head.backbone.views),
    }


def newest_promotions(tables: Tables, settings: Settings) -> list[dict[str, Any]]:
    """Return a promotion for each backbone and kind that lost its newest one; it names the model kept or fitted last."""
    return [row for kind in KINDS for row in _newest_promotions_of(tables, kind)]


def _newest_promotions_of(tables: Tables, kind: Kind) -> list[dict[str, Any]]:
    models = {row["model_id"]: row for row in tables.rows(kind.models, ("model_id", "backbone", "created_at"))}
    runs = sorted(tables.rows(MODEL_RUNS, ("backbone", "model_id", "published_at")), key=lambda row: row["published_at"])
    fitted = sorted(models.values(), key=lambda row: row["created_at"])
    snapshot = tables.load(PROMOTIONS)
    promoted = [row for row in tables.rows(PROMOTIONS, ("backbone", "sequence", "kind")) if kind.owns(row)]
    found = []
    for backbone in sorted({row["backbone"] for row in models.values()}):
        sequence = max(1, version_number_in(snapshot, kind.key(PROMOTIONS, backbone)))
        last = [row["model_id"] for row in (*fitted, *runs) if row["backbone"] == backbone and row["model_id"] in models]
        if last and not any(row["backbone"] == backbone and row["sequence"] >= sequence for row in promoted):
            found.append(_promotion(backbone, sequence, last[-1]) | {"kind": kind.name})
    return found


def _promotion(backbone: str, sequence: int, model_id: str) -> dict[str, Any]:
    row = {"backbone": backbone, "sequence": sequence, "model_id": model_id, "predecessor": None, "reason": _BY}
    return row | {"gain": None, "distance": None, "is_held": False, "promoted_at": datetime.now(UTC)}


def captured_rows(tables: Tables) -> list[dict[str, Any]]:
    """Return the missing rows of `captured`: what each model keeps of each batch version that it has rows of."""
    held = {(row["model_id"], row["manifest_digest"]) for row in tables.rows(CAPTURED, ("model_id", "manifest_digest"))}
    projected, found = tables.load(PCA_FEATURES), []
    for file in tables.load(MODELS).files():
        known = parse(file.path)
        assert isinstance(known, ModelPath), "a model's file has its own path"
        model = read_model(tables.warehouse, known.model_id)
        for version in BatchVersions.load(tables, model.backbone).readable():
            change = Change(version_key(model.model_id, version.batch_id), version.number, version.manifest_digest)
            if change.state_in(projected) is CommitState.DONE and (model.model_id, version.manifest_digest) not in held:
                tally = VarianceTally.empty(model.basis.mean, model.basis.components)
                try:
                    for chunk in feature_chunks(tables.warehouse, version):
                        tally = tally.add(chunk)
                except DamagedFileError:
                    continue
                captured = tally.captured(model.model_id, version.batch_id, version.manifest_digest)
                row = {"model_id": model.model_id, "batch_id": version.batch_id, "manifest_digest": version.manifest_digest}
                found.append(row | {"captured": captured.share, "total": captured.total})
    return found
