"""classify: published features -> the predictions of classifiers, one of which it may fit first. No image, no backbone."""

from dataclasses import replace

from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.stages.classifier_fit import fit_classifier
from orchard_jobs.stages.prediction import predict_batches
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def classify(workers: Workers, warehouse: Warehouse, plan: ProjectionPlan, work: str) -> JobReport:
    """Fit the classifier of a plan, write its file, and stage the predictions of every classifier and batch of the plan.

    Args:
        workers: what the tasks run on.
        warehouse: where the published features lie.
        plan: the fit, and the classifiers, each with its batch versions.
        work: the work digest, which names the folders.

    Returns:
        The report, not yet written, with what the fit counted: one partition and one evaluation a classifier and batch.

    Raises:
        JobError: the rows are such that no fit is possible.
    """
    staging = Staging(warehouse, OwnPaths(work))
    counts = fit_classifier(workers, staging, plan.backbone, plan.fit) if plan.fit else {}
    with staging.timed("predict"):
        staged, evaluations = predict_batches(workers, staging, plan.pairs)
    counts |= {"predicted": sum(partition.rows for partition in staged), "batches": len(staged)}
    return replace(staging.report("classify", plan, workers.job_id, staged), counts=counts, evaluations=evaluations)
