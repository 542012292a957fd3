"""classify on a real Spark: the classifier that the same tasks fit in one process."""

from pathlib import Path

import numpy as np
from orchard_jobs.audit.projection_checks import audit_projection
from orchard_jobs.classifier.stored import read_classifier
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import Projection, ProjectionPlan
from orchard_jobs.stages.classifier_fit import fit_classifier
from orchard_jobs.stages.classify import classify
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from support.labelled_samples import labelled
from support.published_labels import shop

CLASS_OF = {"gala": "apple", "fuji": "apple", "plum": "plum", "quince": "quince"}
NEW = labelled({"gala": 40, "plum": 40, "quince": 40}).rows


def test_spark_fits_what_one_process_fits(workers: Workers, tmp_path: Path) -> None:
    published = shop(Warehouse.at(str(tmp_path)))
    alone = published.plan(CLASS_OF, name="lda-alone")
    here = Workers(workers.spark, "spark")
    expected_counts = fit_classifier(here, Staging(published.warehouse, OwnPaths("a" * 64)), "backbone", alone)
    wanted = published.plan(CLASS_OF)
    plan = ProjectionPlan("backbone", (Projection(wanted.model, wanted.versions),), kind="classifier", fit=wanted)
    report = classify(workers, published.warehouse, plan, work_digest(plan.digest, plan.backbone, "classify"))
    rows, batches = sum(len(data.labels) for data in published.data), len(published.versions)
    assert (report.stage, report.counts) == ("classify", expected_counts | {"predicted": rows, "batches": batches})
    audit_projection(published.warehouse, plan, report).raise_if_failed()
    assert [(one.batch_id, one.unseen) for one in report.evaluations] == [(one.batch_id, ()) for one in wanted.versions]
    assert plan.fit is not None
    found, expected = (read_classifier(published.warehouse, one.model) for one in (plan.fit, alone))
    assert (found.shrinkage, found.held_out, found.classifier.classes) == (
        expected.shrinkage,
        expected.held_out,
        expected.classifier.classes,
    )
    np.testing.assert_allclose(found.classifier.scores_of(NEW), expected.classifier.scores_of(NEW), rtol=1e-9)
    np.testing.assert_allclose([found.temperature, found.max_distance], [expected.temperature, expected.max_distance], rtol=1e-9)
