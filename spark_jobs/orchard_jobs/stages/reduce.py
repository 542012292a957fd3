"""reduce: the features that `featurize` staged x the planned PCA model -> the batch's pca_features, staged."""

from dataclasses import replace

from orchard_jobs.contract.jobs import BatchVersion, JobReport
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.stages.projection import project_batches
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def reduce(workers: Workers, warehouse: Warehouse, head: ManifestHead, work: str, featurized: JobReport) -> JobReport:
    """Stage the pca_features of a manifest's batch.

    Args:
        workers: what the tasks run on.
        warehouse: where the staged features lie.
        head: the manifest's head; it names the model.
        work: the work digest, which names the folders.
        featurized: the finished report of `featurize` for this manifest.

    Returns:
        The report, not yet written.

    Raises:
        ConfigurationError: the manifest names no model.
    """
    if head.model is None:
        raise ConfigurationError(f"manifest {head.digest} names no PCA model: there is nothing to reduce with yet")
    staging = Staging(warehouse, OwnPaths(work))
    (features,) = featurized.of_table("features")
    batch = BatchVersion(head.batch_id, head.digest, head.number, tuple(file.path for file in features.files))
    with staging.timed("project"):
        staged, captured = project_batches(workers, staging, [(head.model, batch)])
    report = staging.report("reduce", head, workers.job_id, staged)
    return replace(report, counts={"projected": staged[0].rows}, captured=captured)
