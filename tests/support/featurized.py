"""Run featurize on a frozen manifest, as a job does."""

from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.stages.featurize import featurize
from orchard_jobs.stages.staging import finish
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse


def run_featurize(workers: Workers, warehouse: Warehouse, head: ManifestHead) -> JobReport:
    work = work_digest(head.digest, head.backbone.id, "featurize")
    return finish(warehouse, featurize(workers, warehouse, head, work))
