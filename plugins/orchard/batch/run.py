"""The use cases of a batch: reconcile, plan, validate, publish, record. Tasks, tests and generated histories all call these.

Knows no Airflow: who lists the landing zone, who prepares the target and who takes the lineage come as arguments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.escaping import escaping_logger

from orchard.batch.comparison import ListingComparer
from orchard.batch.cost import check_cost
from orchard.batch.manifests import read_head
from orchard.batch.plan import plan_batch
from orchard.batch.publish import PublishedTableVersions, RunFacts, publish_batch
from orchard.batch.reconcile import find_differences
from orchard.landing_zone.batch_lock import BatchLock
from orchard.landing_zone.keys import is_batch_key
from orchard.landing_zone.listing import LandingZone
from orchard.outcomes import Done, Outcome, Skipped, use_case
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs

log = escaping_logger(__name__)


@dataclass(frozen=True)
class LineageRecord:
    """A published batch version, as lineage records it; `versions` are Delta versions by table name."""

    head: ManifestHead
    featurized: JobReport
    reduced: JobReport | None
    versions: Mapping[str, int | None]
    run_id: str


@use_case
def plan(
    tables: Tables, settings: Settings, lock: BatchLock, landing_zone: LandingZone, prepare: Callable[[Backbone], None]
) -> Outcome[PlannedJobs]:
    """List the run's batch, compare it with what is published, and freeze the difference as a manifest.

    Skipped when nothing differs. Failed when the target cannot load the backbone, or the batch would cost more than is allowed.

    Args:
        tables: the tables; those that are not there are created.
        settings: the settings.
        lock: the batch's lock; the run's promise to list is withdrawn before the listing.
        landing_zone: lists the batch.
        prepare: sees that the target's jobs can load a backbone; raises ConfigurationError when not.
    """
    batch_id = lock.batch_id
    tables.create_all()
    prepare(settings.backbone)
    lock.withdraw_promise()
    listed = landing_zone.list(settings.landing_zone.batch_prefix(batch_id))
    head = plan_batch(tables, settings, batch_id, listed, landing_zone.has_false_md5)
    if head is None:
        return Skipped(f"batch {batch_id} is unchanged: every listed image is already published")
    log.info("cost: %s", check_cost(head, settings))
    log.info("planned batch_id=%s version=%s listed=%s actions=%s", batch_id, head.number, head.listed, head.actions)
    return Done(PlannedJobs.of_batch(tables.warehouse, head))


@use_case
def validate(tables: Tables, settings: Settings, planned: PlannedJobs) -> Outcome[str]:
    """Audit what the jobs staged; fails closed. The value is the verdict in words.

    Raises:
        JobError: a report is gone or damaged.
    """
    head = read_head(tables.warehouse, planned.input_digest)
    policy = AuditPolicy(settings.images.max_quarantined_share)
    verdict = audit_batch(tables.warehouse, head, *_reports(tables, planned), policy)
    for warning in verdict.warnings:
        log.warning("audit batch_id=%s %s", head.batch_id, warning)
    verdict.raise_if_failed()
    return Done("; ".join(["passed", *verdict.warnings]))


@use_case
def publish(
    tables: Tables, settings: Settings, planned: PlannedJobs, verdict: str, run_id: str
) -> Outcome[PublishedTableVersions]:
    """Commit a validated version to the tables, `runs` last. Skipped when a later run of the batch has already published.

    Raises:
        JobError: a report or a staged file is gone or damaged.
    """
    head = read_head(tables.warehouse, planned.input_digest)
    facts = RunFacts(run_id, settings.jobs.target, verdict)
    return Done(publish_batch(tables, head, *_reports(tables, planned), facts))


@use_case
def record(
    tables: Tables,
    planned: PlannedJobs,
    versions: Mapping[str, int | None],
    run_id: str,
    emit: Callable[[LineageRecord], None],
) -> Outcome[None]:
    """Hand the published version on as lineage.

    Args:
        tables: the tables.
        planned: the run's jobs.
        versions: the Delta version of each table, as `publish` returned them.
        run_id: the run.
        emit: takes the lineage; must not fail for a backend that cannot be reached.
    """
    head = read_head(tables.warehouse, planned.input_digest)
    emit(LineageRecord(head, *_reports(tables, planned), versions, run_id))
    return Done(None)


@use_case
def reconcile(tables: Tables, settings: Settings, landing_zone: LandingZone) -> Outcome[tuple[str, ...]]:
    """Return the batches that need a run, sorted: what they list differs, or a run left a version of them half-way.

    Skipped when there is none. Batches and objects that no run can be started for are logged and left out.
    """
    tables.create_all()
    view = ListingComparer.load(tables, settings)
    found = find_differences(landing_zone.list, settings.landing_zone, view.differs)
    # A version may have been left half-way by a run whose objects are gone by now.
    half_way = set(view.versions.half_way)
    startable = {batch_id for batch_id in half_way if is_batch_key(batch_id, settings.landing_zone.key_format)}
    batch_ids = tuple(sorted({*found.batch_ids, *startable}))
    log.info("batches=%s objects=%s different=%s", found.batches, found.objects, batch_ids)
    for left in sorted(half_way - startable):
        log.warning("batch %s was left half-way, and is not a key of ORCHARD_BATCH_KEY_FORMAT: see orchard status", left)
    for batch_id, error in found.damaged.items():
        log.warning("batch %s is not compared: %s", batch_id, error)
    if found.strays:
        log.warning("objects under no batch key: %s, for example %s", found.strays, found.examples)
    if not batch_ids:
        damaged = f"; {len(found.damaged)} batches are damaged: see orchard verify" if found.damaged else ""
        return Skipped(f"{found.objects} objects of {found.batches} batches are as published{damaged}")
    return Done(batch_ids)


def _reports(tables: Tables, planned: PlannedJobs) -> tuple[JobReport, JobReport | None]:
    return planned.required_report(tables.warehouse, "featurize"), planned.report(tables.warehouse, "reduce")
