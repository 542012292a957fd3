"""reduce and project on a real Spark: the rows of features, each projected on the planned models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.audit.projection_checks import audit_projection
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier, create_classifier
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import MODELS
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import BatchVersion, JobReport, Projection, ProjectionPlan
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ManifestHead, ModelReference
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.stages.project import project
from orchard_jobs.stages.reduce import reduce
from orchard_jobs.stages.staging import finish
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from support.featurized import run_featurize
from support.local_manifests import entry_of, files_of, freeze, rows_of

Rows = list[dict[str, Any]]


def test_reduce_projects_what_featurize_staged(
    workers: Workers, warehouse: Warehouse, batch: list[Path], backbone: Backbone, model: ModelReference
) -> None:
    head = freeze(warehouse, backbone, [entry_of(path) for path in batch], model=model, number=7)
    featurized = run_featurize(workers, warehouse, head)
    report = finish(warehouse, reduce(workers, warehouse, head, work_digest(head.digest, backbone.id, "reduce"), featurized))
    audit_batch(warehouse, head, featurized, report, AuditPolicy(max_quarantined_share=1.0)).raise_if_failed()
    _check_projection(warehouse, model, rows_of(warehouse, featurized, "features"), rows_of(warehouse, report, "pca_features"))
    (captured,) = report.captured
    assert captured.share is not None
    assert 0.3 < captured.share < 1
    rows = np.array([row["features"] for row in rows_of(warehouse, featurized, "features")], dtype=np.float64)
    assert len(files_of(featurized, "features")) > 1
    row = pq.ParquetFile(warehouse.open(model.path)).read().to_pylist()[0]
    components = np.array(row["components"]).reshape(row["k"], -1)
    centred = rows - rows.mean(axis=0)
    assert captured.n == len(rows)
    np.testing.assert_allclose([captured.total, captured.kept], [(centred**2).sum(), ((centred @ components.T) ** 2).sum()])


def _check_projection(warehouse: Warehouse, model: ModelReference, features: Rows, projected: Rows) -> None:
    row = pq.ParquetFile(warehouse.open(model.path)).read().to_pylist()[0]
    mean, components = np.array(row["mean"]), np.array(row["components"]).reshape(row["k"], -1)
    expected = {row["image_uri"]: (np.float64(row["features"]) - mean) @ components.T for row in features}
    assert len(projected) == len(expected)
    largest = max(np.abs(vector).max() for vector in expected.values())
    for found in projected:
        np.testing.assert_allclose(found["pca_features"], expected[found["image_uri"]], atol=1e-6 * largest)


def test_project_takes_published_batches_with_each_model(
    workers: Workers, warehouse: Warehouse, first: tuple[ManifestHead, JobReport], model: ModelReference
) -> None:
    head, report = first
    published = BatchVersion(head.batch_id, head.digest, 1, files_of(report, "features"))
    empty = BatchVersion("empty", "0" * 64, 1, ())
    narrow = narrower(warehouse, model)
    plan = ProjectionPlan(head.backbone.id, (Projection(model, (published, empty)), Projection(narrow, (published,))))
    done = project(workers, warehouse, plan, work_digest(plan.digest, plan.backbone, "project"))
    staged = [partition.partition for partition in done.partitions]
    assert staged == [("pca-test", head.batch_id), ("pca-test", "empty"), ("pca-narrow", head.batch_id)]
    assert done.captured[1].share is None
    audit_projection(warehouse, plan, done).raise_if_failed()
    features = rows_of(warehouse, report, "features")
    for one, partition in ((model, done.partitions[0]), (narrow, done.partitions[2])):
        _check_projection(warehouse, one, features, rows_of(warehouse, replace(done, partitions=(partition,)), "pca_features"))
    shares = [entry.share or 0.0 for entry in done.captured]
    assert 0 < shares[2] < shares[0] < 1


def narrower(warehouse: Warehouse, model: ModelReference) -> ModelReference:
    """Return a model of the other's first two components."""
    row = pq.ParquetFile(warehouse.open(model.path)).read().to_pylist()[0]
    row |= {"model_id": "pca-narrow", "k": 2, "components": row["components"][: 2 * len(row["mean"])]}
    packed = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row], arrow_schema(MODELS)), packed)
    warehouse.create("models/pca-narrow/model.parquet", packed.getvalue().to_pybytes())
    return ModelReference("pca-narrow", "models/pca-narrow/model.parquet", 2)


def test_reduce_without_a_model_is_refused(workers: Workers, warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> None:
    with pytest.raises(ConfigurationError, match="names no model"):
        reduce(workers, warehouse, first[0], "work", first[1])


def test_another_model_in_the_file_is_refused(
    workers: Workers, warehouse: Warehouse, first: tuple[ManifestHead, JobReport], model: ModelReference
) -> None:
    published = BatchVersion(first[0].batch_id, first[0].digest, 1, files_of(first[1], "features"))
    plan = ProjectionPlan(first[0].backbone.id, (Projection(replace(model, model_id="pca-other"), (published,)),))
    with pytest.raises(JobError, match="not pca-other"):
        project(workers, warehouse, plan, "work")


@pytest.fixture(scope="session")
def classifier(warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> ModelReference:
    """A classifier of the labels of the first batch version, which is none of its sources."""
    rows = [row for row in rows_of(warehouse, first[1], "features") if row["label"] is not None]
    moments = ClassMoments.of(np.array([row["features"] for row in rows], np.float32), [row["label"] for row in rows])
    classes = classes_of(moments)
    reference = ModelReference("lda-test", model_path("lda-test", CLASSIFIERS), len(classes.names))
    class_of, held_out = {name: name for name in classes.names}, HeldOut("contents", 2, 1, 1)
    fitted = fit(classes, 0.5)
    stored = StoredClassifier("lda-test", first[0].backbone.id, fitted, moments.n, 0.5, 1.0, 1e3, class_of, {}, (), held_out)
    create_classifier(warehouse, reference.path, stored, moments)
    return reference


def test_reduce_predicts_and_projects_in_one_operation(
    workers: Workers,
    warehouse: Warehouse,
    batch: list[Path],
    backbone: Backbone,
    model: ModelReference,
    classifier: ModelReference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = freeze(warehouse, backbone, [entry_of(path) for path in batch], model=model, classifier=classifier, number=9)
    featurized = run_featurize(workers, warehouse, head)
    real, counted = Workers.run, list[int]()

    def run(self: Workers, count: int, *rest: Any) -> list[str]:
        counted.append(count)
        return real(self, count, *rest)

    monkeypatch.setattr(Workers, "run", run)
    report = finish(warehouse, reduce(workers, warehouse, head, work_digest(head.digest, backbone.id, "reduce"), featurized))
    assert counted == [len(files_of(featurized, "features"))]
    audit_batch(warehouse, head, featurized, report, AuditPolicy(max_quarantined_share=1.0)).raise_if_failed()
    predicted = rows_of(warehouse, report, "predictions")
    assert report.counts == {"projected": len(predicted), "predicted": len(predicted)}
    labelled = [row for row in predicted if row["label"] is not None]
    assert sum(row["predicted"] == row["label"] for row in labelled) > 0.9 * len(labelled)  # it was fitted on these contents
    (found,) = report.evaluations
    assert (found.rows, found.seen) == (len(predicted), ())
    _check_projection(warehouse, model, rows_of(warehouse, featurized, "features"), rows_of(warehouse, report, "pca_features"))
