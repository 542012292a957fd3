"""The jobs' side of the contract without Spark and without a network: it writes real files and real reports.

A content's vector is drawn from its SHA-256, so equal content has equal features wherever it is computed.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from orchard.batch.manifests import read_entries
from orchard.models.model import read_model
from orchard.tables.commit_rule import Tables
from orchard_jobs import __version__
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.predict import predict
from orchard_jobs.classifier.stored import read_classifier
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, PREDICTIONS
from orchard_jobs.contract.columns import FEATURES, MOMENTS, PCA_FEATURES, QUARANTINE, Table
from orchard_jobs.contract.digests import staged_name, work_digest
from orchard_jobs.contract.evaluations import Cell, Evaluation, merge_cells
from orchard_jobs.contract.jobs import BatchVersion, JobReport, ProjectionPlan, StagedFile, StagedPartition
from orchard_jobs.contract.layout import manifest_path, random_element, report_path, staged_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, ModelReference, read_known
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.parquet import pack, read_parquet
from orchard_jobs.pca.coordinates import VarianceTally, project
from orchard_jobs.pca.moments import Moments
from orchard_jobs.schemas import arrow_schema

from support.fake_fit import write_classifier
from support.listed_bucket import bytes_of, etag_of

BROKEN = b"broken"


def vector_of(content: bytes, dimension: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the features that the fake backbone gives of a content."""
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


# Followed by its number of pixels; all other contents have one.
LARGE = b"large "


@dataclass
class FakeJobs:
    """Runs the stages over a bucket held in memory; counts what went through the backbone."""

    tables: Tables
    bucket: Mapping[str, bytes]
    network_runs: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=lambda: {"compared": 0, "compared_right": 0, "compared_right_before": 0})

    def featurize(self, head: ManifestHead) -> JobReport:
        work = work_digest(head.digest, head.backbone.id, "featurize")
        finished = self.tables.warehouse.read_if_there(report_path(work))
        if finished is not None:
            return JobReport.from_json(finished)
        good, bad = self._rows(head)
        partition = (head.backbone.id, head.batch_id)
        staged = (
            self._stage(FEATURES, partition, work, good),
            self._stage(QUARANTINE, partition, work, bad),
            *self._moments(head, partition, work, good),
        )
        runs = len({row["content_sha256"] for row in good if row["computed_in"] == head.digest})
        counts = {
            "listed": head.listed,
            "featurized": runs,
            "reused": len(good) - head.missing_good - runs,
            "quarantined": len(bad) - head.missing_quarantined,
            "missing": head.missing,
            "network_runs": runs * len(head.backbone.views),
        }
        return self._finish(JobReport(work, "featurize", head.digest, head.backbone.id, __version__, "fake", staged, counts))

    def reduce(self, head: ManifestHead, featurized: JobReport) -> JobReport | None:
        if not head.models:
            return None
        work = work_digest(head.digest, head.backbone.id, "reduce")
        (features,) = featurized.of_table("features")
        batch = BatchVersion(head.batch_id, head.digest, head.number, tuple(file.path for file in features.files))
        projected = [self._project(head.model.model_id, batch, work)] if head.model else []
        predicted = [self.predict(head.classifier, batch, work)] if head.classifier else []
        staged = tuple(partition for partition, _ in [*projected, *predicted])
        report = JobReport(work, "reduce", head.digest, head.backbone.id, __version__, "fake", staged)
        captured, evaluations = tuple(one for _, one in projected), tuple(one for _, one in predicted)
        return self._finish(replace(report, captured=captured, evaluations=evaluations))

    def predict(self, classifier: ModelReference, batch: BatchVersion, work: str) -> tuple[StagedPartition, Evaluation]:
        """Stage the predictions of a batch version by a classifier, and count them."""
        stored = read_classifier(self.tables.warehouse, classifier)
        is_fitted_on = batch.batch_id in {batch_id for batch_id, _ in stored.sources}
        rows, cells = self._published(batch.files), []
        for row in rows:
            found = predict(np.array([row["features"]], np.float32), stored)
            truth = stored.class_of.get(row["label"])
            row |= {"predicted": found.names(0)[0], "second": found.names(1)[0], "distance": found.distance[0]}
            row |= {"score": found.scores[0, 0], "second_score": found.scores[0, 1], "is_known": bool(found.is_known[0])}
            row["is_seen"] = is_fitted_on or row["computed_in"] != batch.manifest_digest
            row |= {"manifest_digest": batch.manifest_digest, "jobs_version": __version__}
            counted = (1, int(found.is_among([truth])[0]), int(row["is_known"]), float(row["score"]))
            cells.append(Cell(truth, row["predicted"], row["is_seen"], *counted))
        staged = self._stage(PREDICTIONS, (classifier.model_id, batch.batch_id), work, rows)
        return staged, Evaluation(classifier.model_id, batch.batch_id, batch.manifest_digest, merge_cells(cells))

    def project(self, plan: ProjectionPlan) -> JobReport:
        work = work_digest(plan.digest, plan.backbone, "project")
        done = [self._project(model.model_id, batch, work) for model, batch in plan.pairs]
        staged = tuple(partition for partition, _ in done)
        counts = {"projected": sum(partition.rows for partition in staged), "batches": len(staged)}
        captured = tuple(entry for _, entry in done)
        return self._finish(
            JobReport(work, "project", plan.digest, plan.backbone, __version__, "fake", staged, counts, captured=captured)
        )

    def classify(self, plan: ProjectionPlan) -> JobReport:
        """Fit as asked, at one shrinkage; every tenth row counts as held out, and `compared` is what the current one is told."""
        work = work_digest(plan.digest, plan.backbone, "classify")
        counts = write_classifier(self.tables.warehouse, plan.backbone, plan.fit) | self.compared if plan.fit else {}
        done = [self.predict(model, batch, work) for model, batch in plan.pairs]
        staged, evaluations = tuple(partition for partition, _ in done), tuple(one for _, one in done)
        report = JobReport(work, "classify", plan.digest, plan.backbone, __version__, "fake", staged, counts)
        return self._finish(replace(report, evaluations=evaluations))

    def run_planned(self, plan: ProjectionPlan) -> JobReport:
        """Run the job of a model's DAG."""
        return self.project(plan) if plan.stage == "project" else self.classify(plan)

    def _rows(self, head: ManifestHead) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        vectors = {row["content_sha256"]: row for row in self._published(head.vector_files)}
        kept = {row["image_uri"]: row for row in self._published(head.features_files)}
        kept_bad = {row["image_uri"]: row for row in self._published(head.quarantine_files)}
        known = self._known(head)
        assert known <= vectors.keys()
        computed: dict[str, dict[str, Any]] = {}
        good, bad = [], []
        stamp = {"manifest_digest": head.digest, "jobs_version": __version__}
        for entry in read_entries(self.tables.warehouse, head):
            if entry.action == "keep":
                good.append(kept[entry.image_uri] | stamp)
            elif entry.action == "keep_quarantined":
                bad.append(kept_bad[entry.image_uri] | stamp)
            elif entry.action == "reuse":
                assert entry.content_sha256 is not None
                good.append(vectors[entry.content_sha256] | _of_entry(entry) | stamp)
            else:
                reused = computed | {content: vectors[content] for content in known}
                self._compute(head, entry, reused, good, bad, stamp)
                if good and good[-1]["image_uri"] == entry.image_uri:
                    computed[good[-1]["content_sha256"]] = good[-1]
        return good, bad

    def _moments(
        self, head: ManifestHead, partition: tuple[str, ...], work: str, good: list[dict[str, Any]]
    ) -> tuple[StagedPartition, ...]:
        """Stage the version's moments where they are not much larger than its features, as the job does.

        Those of labels are staged with them, however many labels there are, so that the small batches of histories have some.
        """
        if len(good) < head.backbone.dimension / 2:
            return ()
        moments = Moments.of(np.array([row["features"] for row in sorted(good, key=lambda row: row["image_uri"])], np.float32))
        row = {"manifest_digest": head.digest, "n": moments.n, "mean": moments.mean, "second_moment": moments.upper_triangle}
        classes = self._class_moments(head, good)
        return self._stage(MOMENTS, partition, work, [row]), self._stage(CLASS_MOMENTS, partition, work, [classes])

    def _class_moments(self, head: ManifestHead, good: list[dict[str, Any]]) -> dict[str, Any]:
        missing = {entry.image_uri for entry in read_entries(self.tables.warehouse, head) if entry.is_missing}
        counted = counted_rows(good, head.unlabelled, missing)
        vectors = np.array([row["features"] for row in counted], np.float32).reshape(len(counted), head.backbone.dimension)
        moments = ClassMoments.of(vectors, [row["label"] for row in counted]) if counted else ClassMoments.empty()
        return {
            "manifest_digest": head.digest,
            "unlabelled": list(head.unlabelled),
            "labels": list(moments.labels),
            "counts": moments.counts,
            "means": moments.means.ravel(),
            "scatter": moments.upper_triangle,
        }

    def _known(self, head: ManifestHead) -> frozenset[str]:
        if head.known is None:
            return frozenset()
        return read_known(self.tables.warehouse.read(manifest_path(head.digest, head.known.name)))

    def _compute(
        self,
        head: ManifestHead,
        entry: Entry,
        reused: Mapping[str, dict[str, Any]],
        good: list[dict[str, Any]],
        bad: list[dict[str, Any]],
        stamp: dict[str, str],
    ) -> None:
        content = self.bucket.get(entry.image_uri.removeprefix("s3://landing/"))
        if content is None or etag_of(content) != entry.etag:
            row = {"content_sha256": None, "reason": "vanished", "message": "gone or changed since the listing"}
            bad.append(_of_entry(entry) | row | stamp)
            return
        if entry.size_bytes > head.object_limit:
            message = f"{entry.size_bytes} bytes, the limit is {head.object_limit}"
            row = {"content_sha256": None, "reason": Reason.OVER_OBJECT_LIMIT.value, "message": message}
            bad.append(_of_entry(entry) | row | stamp)
            return
        content = bytes_of(content)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in reused:
            good.append(reused[sha256] | _of_entry(entry) | stamp)
            return
        pixels = int(content.removeprefix(LARGE)) if content.startswith(LARGE) else 1
        if pixels > head.pixel_limit:
            message = f"{pixels} pixels, the limit is {head.pixel_limit}"
            row = {"content_sha256": sha256, "reason": Reason.OVER_PIXEL_LIMIT.value, "message": message}
            bad.append(_of_entry(entry) | row | stamp)
            return
        if content.startswith(BROKEN):
            bad.append(_of_entry(entry) | {"content_sha256": sha256, "reason": "truncated", "message": "cut short"} | stamp)
            return
        self.network_runs.append(sha256)
        vector = vector_of(content, head.backbone.dimension)
        computed = {"width": 1, "height": 1, "features": vector, "computed_in": head.digest}
        good.append(_of_entry(entry) | {"content_sha256": sha256} | computed | stamp)

    def _published(self, paths: tuple[str, ...]) -> list[dict[str, Any]]:
        return [row for path in paths for row in read_parquet(self.tables.warehouse, path).to_pylist()]

    def _project(self, model_id: str, batch: BatchVersion, work: str) -> tuple[StagedPartition, Any]:
        basis = read_model(self.tables.warehouse, model_id).basis
        rows = self._published(batch.files)
        tally = VarianceTally.empty(basis.mean, basis.components)
        for row in rows:
            vector = np.array([row.pop("features")], dtype=np.float32)
            tally = tally.add(vector)
            row["pca_features"] = project(vector, basis.mean, basis.components)[0].astype(np.float32)
            row |= {"manifest_digest": batch.manifest_digest, "jobs_version": __version__}
        staged = self._stage(PCA_FEATURES, (model_id, batch.batch_id), work, rows)
        return staged, tally.captured(model_id, batch.batch_id, batch.manifest_digest)

    def _stage(self, table: Table, partition: tuple[str, ...], work: str, rows: list[dict[str, Any]]) -> StagedPartition:
        if not rows:
            return StagedPartition(table.name, partition, ())
        rows = sorted(rows, key=lambda row: row.get("image_uri", ""))
        columns = [{name: row[name] for name in table.column_names} for row in rows]
        content = pack(pa.Table.from_pylist(columns, arrow_schema(table)))
        sha256 = hashlib.sha256(content).hexdigest()
        path = staged_path(table, partition, work, random_element(), staged_name(sha256))
        self.tables.warehouse.create(path, content)
        return StagedPartition(table.name, partition, (StagedFile(path, len(content), len(rows), sha256),))

    def _finish(self, report: JobReport) -> JobReport:
        path = report_path(report.work)
        self.tables.warehouse.create(path, report.to_json().encode())
        return JobReport.from_json(self.tables.warehouse.read(path))


def counted_rows(
    good: Sequence[Mapping[str, Any]], unlabelled: Collection[str], missing: Collection[str]
) -> list[Mapping[str, Any]]:
    """Return the rows that count for a classifier: labelled ones, but no missing image that is listed under another label."""
    listed = {(row["content_sha256"], row["label"]) for row in good if row["image_uri"] not in missing}

    def is_moved(row: Mapping[str, Any]) -> bool:
        others = {label for content, label in listed if content == row["content_sha256"]} - {row["label"]}
        return row["image_uri"] in missing and bool(others)

    return [row for row in good if row["label"] is not None and row["label"] not in unlabelled and not is_moved(row)]


def _of_entry(entry: Entry) -> dict[str, Any]:
    return {
        "image_uri": entry.image_uri,
        "etag": entry.etag,
        "size_bytes": entry.size_bytes,
        "uploaded_at": datetime.fromisoformat(entry.uploaded_at),
        "label": entry.label,
    }
