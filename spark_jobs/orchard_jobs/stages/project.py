"""project: published features x models -> pca_features of each planned model and batch, staged. No image, no network."""

from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import SparkSession

from orchard_jobs import __version__
from orchard_jobs.contract.jobs import JobReport, ProjectionPlan
from orchard_jobs.pca.basis import read_basis
from orchard_jobs.stages.projection import captured_by, project_batch
from orchard_jobs.stages.staging import Staging
from orchard_jobs.storage import Warehouse

# A small batch keeps one core busy for a moment only: several in flight hide the driver's part of each.
BATCHES_AT_ONCE = 4


def project(spark: SparkSession, warehouse: Warehouse, plan: ProjectionPlan, work: str) -> JobReport:
    """Stage the pca_features of every model and batch of a plan.

    Args:
        spark: the session.
        warehouse: where the published features lie.
        plan: the models, each with its batch versions.
        work: the work digest, which names the folders.

    Returns:
        The report, not yet written: one partition and one `captured` a model and batch, in the plan's order.
    """
    staging = Staging(warehouse, work)
    bases = {one.model: read_basis(warehouse, one.model) for one in plan.projections}
    with staging.timed("project"), ThreadPoolExecutor(BATCHES_AT_ONCE) as pool:
        staged = list(pool.map(lambda pair: project_batch(spark, staging, pair[0], bases[pair[0]], pair[1]), plan.pairs))
    with staging.timed("captured"):
        captured = tuple(captured_by(warehouse, model, bases[model], batch) for model, batch in plan.pairs)
    return JobReport(
        work=work,
        stage="project",
        input_digest=plan.digest,
        backbone=plan.backbone,
        jobs_version=__version__,
        job_id=spark.conf.get("spark.app.id", "") or "",
        partitions=tuple(staged),
        counts={"projected": sum(partition.rows for partition in staged), "batches": len(staged)},
        captured=captured,
        seconds=staging.seconds,
    )
