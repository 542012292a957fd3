"""The audits of what a job of a model's DAG made, by kind: of its models, then of their rows."""

from collections.abc import Iterator

from orchard_jobs.audit.classifier_checks import ClassifierParts, audit_classifier
from orchard_jobs.audit.model_checks import audit_model
from orchard_jobs.audit.projection_checks import audit_projection
from orchard_jobs.audit.verdict import Verdict
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.stored import read_classifier, read_merged
from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.storage import Warehouse

from orchard.models.model import read_model


def verdicts_on_pca(warehouse: Warehouse, projection: ProjectionPlan, report: JobReport) -> Iterator[Verdict]:
    """Yield the verdict on each PCA model, and on the rows that were projected with them."""
    for one in projection.projections:
        model = read_model(warehouse, one.model.model_id)
        basis = model.basis
        spectrum = (basis.explained_variance, basis.explained_variance_ratio)
        yield audit_model(basis.mean, basis.components, *spectrum, model.moments.n)
    yield audit_projection(warehouse, projection, report)


def verdicts_on_classifiers(warehouse: Warehouse, projection: ProjectionPlan, report: JobReport) -> Iterator[Verdict]:
    """Yield the verdict on each classifier, and on the rows that were predicted with them."""
    fits = {fit.model: fit for fit in [projection.fit] if fit}
    for model in dict.fromkeys([*fits, *(one.model for one in projection.projections)]):
        yield audit_classifier(_parts_of(warehouse, model), fits.get(model))
    yield audit_projection(warehouse, projection, report)


def _parts_of(warehouse: Warehouse, model: ModelReference) -> ClassifierParts:
    stored, (moments, _) = read_classifier(warehouse, model), read_merged(warehouse, model)
    own, classes = stored.classifier, classes_of(moments, stored.class_of)
    return ClassifierParts(
        model_id=stored.model_id,
        sources=stored.sources,
        class_of=stored.class_of,
        left_out=stored.left_out,
        classes=own.classes,
        mean=own.mean,
        whitening=own.whitening,
        centres=own.centres,
        log_priors=own.log_priors,
        shrinkage=stored.shrinkage,
        temperature=stored.temperature,
        max_distance=stored.max_distance,
        held_out_rows=stored.held_out.rows,
        held_out_right=stored.held_out.right,
        n=stored.n,
        counted=moments.n,
        means=classes.means,
        within=classes.scatter / classes.n,
    )
