"""reduce: the features that `featurize` staged x the planned models -> the batch's pca_features and predictions, staged."""

from dataclasses import replace

from orchard_jobs.contract.jobs import BatchVersion, JobReport
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.stages.model_rows import Wanted, stage_rows
from orchard_jobs.stages.prediction import PREDICTION, evaluation
from orchard_jobs.stages.projection import PROJECTION, captured
from orchard_jobs.stages.staging import OwnPaths, Staging
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

_COUNTED = {PROJECTION: "projected", PREDICTION: "predicted"}


def reduce(workers: Workers, warehouse: Warehouse, head: ManifestHead, work: str, featurized: JobReport) -> JobReport:
    """Stage the pca_features and the predictions of a manifest's batch, in one Spark job.

    Args:
        workers: what the tasks run on.
        warehouse: where the staged features lie.
        head: the manifest's head; it names the models.
        work: the work digest, which names the folders.
        featurized: the finished report of `featurize` for this manifest.

    Returns:
        The report, not yet written.

    Raises:
        ConfigurationError: the manifest names no model.
    """
    if not head.models:
        raise ConfigurationError(f"manifest {head.digest} names no model: there is nothing to reduce with yet")
    staging = Staging(warehouse, OwnPaths(work))
    (features,) = featurized.of_table("features")
    batch = BatchVersion(head.batch_id, head.digest, head.number, tuple(file.path for file in features.files))
    kinds = ((PROJECTION, head.model), (PREDICTION, head.classifier))
    wanted = [Wanted(kind, model, batch) for kind, model in kinds if model is not None]
    with staging.timed("project"):
        staged = stage_rows(workers, staging, wanted)
    return replace(
        staging.report("reduce", head, workers.job_id, tuple(one.partition for one in staged)),
        counts={_COUNTED[one.wanted.kind]: one.partition.rows for one in staged},
        captured=tuple(captured(warehouse, one) for one in staged if one.wanted.kind is PROJECTION),
        evaluations=tuple(evaluation(one) for one in staged if one.wanted.kind is PREDICTION),
    )
