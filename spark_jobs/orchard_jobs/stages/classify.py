"""classify: published features -> a fitted classifier's file, where the plan asks for one. No image, no backbone."""

from dataclasses import replace

from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.stages.classifier_fit import fit_classifier
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def classify(workers: Workers, warehouse: Warehouse, plan: ProjectionPlan, work: str) -> JobReport:
    """Fit the classifier of a plan, and write its file.

    Args:
        workers: what the tasks run on.
        warehouse: where the published features lie.
        plan: the fit.
        work: the work digest, which names the folders.

    Returns:
        The report, not yet written, with what the fit counted.

    Raises:
        JobError: the rows are such that no fit is possible.
    """
    staging = Staging(warehouse, OwnPaths(work))
    counts = fit_classifier(workers, staging, plan.backbone, plan.fit) if plan.fit else {}
    return replace(staging.report("classify", plan, workers.job_id, ()), counts=counts)
