"""project: published features x models -> pca_features of each planned model and batch, staged. No image, no backbone."""

from dataclasses import replace

from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.stages.projection import project_batches
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def project(workers: Workers, warehouse: Warehouse, plan: ProjectionPlan, work: str) -> JobReport:
    """Stage the pca_features of every model and batch of a plan.

    Args:
        workers: what the tasks run on.
        warehouse: where the published features lie.
        plan: the models, each with its batch versions.
        work: the work digest, which names the folders.

    Returns:
        The report, not yet written: one partition and one `captured` a model and batch, in the plan's order.
    """
    staging = Staging(warehouse, OwnPaths(work))
    with staging.timed("project"):
        staged, captured = project_batches(workers, staging, plan.pairs)
    counts = {"projected": sum(partition.rows for partition in staged), "batches": len(staged)}
    return replace(staging.report("project", plan, workers.job_id, staged), counts=counts, captured=captured)
