"""The DAGs' tasks: Airflow at the edge, one call into the product each. A DAG file only wires them."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from orchard_jobs.audit.batch import AuditPolicy, audit_batch
from orchard_jobs.audit.model import audit_model
from orchard_jobs.audit.projection import audit_projection
from orchard_jobs.contract.jobs import JobReport, ProjectionPlan, Stage
from orchard_jobs.contract.layout import manifest_path, plan_path
from orchard_jobs.errors import JobError

from orchard.batch import plan as batches
from orchard.batch import publish as publishing
from orchard.batch import reconcile
from orchard.batch.comparison import PublishedView
from orchard.batch.manifests import read_head
from orchard.landing_zone import messages as arrivals
from orchard.landing_zone.keys import is_batch_key
from orchard.landing_zone.listing import ListedObject, has_false_md5, list_batch, with_quick_times
from orchard.launchers import launcher_for
from orchard.launchers.request import Planned
from orchard.launchers.spend import check_spend
from orchard.maintenance.clean import clean
from orchard.models import refit
from orchard.models.model import Promotion, read_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import finished_report
from orchard.workflow import lineage
from orchard.workflow.assets import FEATURES, UPLOADS, upload_messages
from orchard.workflow.error_mapping import airflow_outcomes
from orchard.workflow.notify import failure_notifier
from orchard.workflow.sensors import turns_of

log = logging.getLogger(__name__)

# A task whose inputs may have been skipped because their work was finished before.
AFTER_SKIPS = "none_failed_min_one_success"


@cache
def settings() -> Settings:
    """Return this process's settings."""
    return Settings.from_environment()


def tables() -> Tables:
    """Return the tables of the settings' warehouse."""
    return Tables.at(settings().warehouse)


def dag_arguments() -> dict[str, Any]:
    """Return what all DAGs have: no catch-up, and for every task retries with back-off and the notifier of a failure."""
    return {
        "catchup": False,
        "tags": ["orchard"],
        "default_args": {
            "retries": settings().retries,
            "retry_delay": timedelta(seconds=settings().retry_seconds),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(hours=1),
            "on_failure_callback": [failure_notifier(settings())],
        },
    }


def _report(planned: Planned, stage: Stage) -> JobReport | None:
    return finished_report(tables().warehouse, planned.work(stage)) if stage in planned.stages else None


def _required_report(planned: Planned, stage: Stage) -> JobReport:
    report = _report(planned, stage)
    if report is None:
        raise JobError(f"the report of {stage} work={planned.work(stage)} is gone: clear the task {stage}, or start a new run")
    return report


@task(outlets=[UPLOADS])
def emit_batches(outlet_events: Any = None) -> None:
    """Read the messages that started this run, and emit an event of `uploads` for each batch that got an upload."""
    source = upload_messages(settings())
    events = get_current_context()["triggering_asset_events"].get(source, ()) if source else ()
    bodies = [message["Body"] for event in events for message in event.extra["payload"]["message_batch"]]
    arrived = arrivals.read_messages(bodies, settings())
    log.info("messages=%s records=%s batches=%s", len(bodies), arrived.counts, arrived.batch_ids)
    for kind, shown in arrived.examples.items():
        log.warning("left out kind=%s count=%s for example %s", kind, arrived.counts[kind], list(shown))
    if not arrived.batch_ids:
        raise AirflowSkipException(f"{len(bodies)} messages tell of no upload to a batch: {arrived.counts}")
    outlet_events[UPLOADS].add_partitions(list(arrived.batch_ids))


@task(outlets=[UPLOADS])
def find_differences(outlet_events: Any = None) -> None:
    """List the whole landing zone, and emit an event of `uploads` for each batch that differs from what is published."""
    client = with_quick_times(S3Hook(settings().aws_conn_id).get_conn())

    def listed(prefix: str) -> Iterator[ListedObject]:
        return list_batch(client, settings().bucket, prefix)

    with airflow_outcomes():
        tables().create_all()
        view = PublishedView.load(tables(), settings())
        found = reconcile.find_differences(listed, settings(), view.differs)
    # A version may have been left half-way by a run whose objects are gone by now.
    half_way = set(view.versions.half_way)
    startable = {batch_id for batch_id in half_way if is_batch_key(batch_id, settings().batch_key_format)}
    batch_ids = sorted({*found.batch_ids, *startable})
    log.info("batches=%s objects=%s different=%s", found.batches, found.objects, batch_ids)
    for left in sorted(half_way - startable):
        log.warning("batch %s was left half-way, and is no key of ORCHARD_BATCH_KEY_FORMAT: orchard status tells more", left)
    if found.strays:
        log.warning("objects under no batch key: %s, for example %s", found.strays, list(found.examples))
    if not batch_ids:
        raise AirflowSkipException(f"{found.objects} objects of {found.batches} batches are as published")
    outlet_events[UPLOADS].add_partitions(batch_ids)


@task(outlets=[FEATURES])
def wake_model(outlet_events: Any = None) -> None:
    """Start pca_model by an event of `features` where the current model lacks a batch."""
    with airflow_outcomes():
        tables().create_all()
        pending = refit.pending_work(tables(), settings())
    if pending is None:
        raise AirflowSkipException("the current model covers every published batch")
    log.info("starting pca_model: %s", pending)
    outlet_events[FEATURES].add_partitions(["reconciled"])


@task(inlets=[UPLOADS])
def plan_batch() -> dict[str, Any]:
    """List the run's batch, compare it with what is published, and freeze the difference as a manifest."""
    turns = turns_of(get_current_context(), settings())
    with airflow_outcomes():
        batch_id = turns.batch_id
        tables().create_all()
        launcher_for(settings()).prepare(settings().backbone)
        client = with_quick_times(S3Hook(settings().aws_conn_id).get_conn())
        turns.begin_listing()
        listed = list_batch(client, settings().bucket, settings().batch_prefix(batch_id))
        head = batches.plan_batch(tables(), settings(), batch_id, listed, partial(has_false_md5, client))
    if head is None:
        raise AirflowSkipException(f"batch {batch_id} is unchanged: nothing is listed that its published version lacks")
    with airflow_outcomes():
        log.info("cost: %s", check_spend(head, settings()))
    log.info("planned batch_id=%s version=%s listed=%s actions=%s", batch_id, head.number, head.listed, head.actions)
    stages: tuple[Stage, ...] = ("featurize", "reduce") if head.model else ("featurize",)
    uri = tables().warehouse.uri_of(manifest_path(head.digest))
    return asdict(Planned(uri, head.digest, head.backbone.id, stages))


@task(task_id="validate", trigger_rule=AFTER_SKIPS)
def validate_batch(planned: dict[str, Any]) -> str:
    """Audit what the jobs staged for a batch; fails closed. Returns the verdict."""
    plan = Planned(**planned)
    with airflow_outcomes():
        head = read_head(tables().warehouse, plan.input_digest)
        policy = AuditPolicy(settings().max_quarantined_share)
        featurized, reduced = _required_report(plan, "featurize"), _report(plan, "reduce")
        verdict = audit_batch(tables().warehouse, head, featurized, reduced, policy)
        for warning in verdict.warnings:
            log.warning("audit batch_id=%s %s", head.batch_id, warning)
        verdict.raise_if_failed()
    return "; ".join(["passed", *verdict.warnings])


@task(task_id="publish", outlets=[FEATURES])
def publish_batch(planned: dict[str, Any], verdict: str, outlet_events: Any = None) -> dict[str, Any]:
    """Commit a validated batch version to the tables, `runs` last. Returns the Delta version of each table."""
    plan = Planned(**planned)
    with airflow_outcomes():
        head = read_head(tables().warehouse, plan.input_digest)
        facts = publishing.RunFacts(get_current_context()["dag_run"].run_id, settings().target, verdict)
        featurized, reduced = _required_report(plan, "featurize"), _report(plan, "reduce")
        published = publishing.publish_batch(tables(), head, featurized, reduced, facts)
    outlet_events[FEATURES].extra = {"manifest_digest": head.digest, "version": head.number}
    return asdict(published)


@task
def record_lineage(planned: dict[str, Any], published: dict[str, Any]) -> None:
    """Emit the published version's OpenLineage event."""
    plan = Planned(**planned)
    head = read_head(tables().warehouse, plan.input_digest)
    run_id = get_current_context()["dag_run"].run_id
    featurized, reduced = _required_report(plan, "featurize"), _report(plan, "reduce")
    lineage.emit_batch(settings(), lineage.PublishedBatch(head, featurized, reduced, published, run_id))


@task
def plan_model() -> dict[str, Any]:
    """Decide what pca_model has to do: nothing, project what the current and the pinned models lack, or fit a new one."""
    context = get_current_context()
    run_id = context["dag_run"].run_id
    if context["ti"].get_dr_count(dag_id=context["dag_run"].dag_id, states=["queued"]) > 0:
        raise AirflowSkipException("a later run of pca_model is queued: it will see every batch that this one sees")
    with airflow_outcomes():
        tables().create_all()
        plan = refit.plan_model(tables(), settings())
    log.info("model action=%s gain=%s reason=%s", plan.action, plan.gain, plan.reason)
    if plan.projection is None:
        if plan.action != "nothing":
            refit.record_model_run(tables(), settings().backbone.id, plan, run_id)
        raise AirflowSkipException(f"nothing to project: {plan.reason}")
    digest = plan.projection.digest
    planned = Planned(tables().warehouse.uri_of(plan_path(digest)), digest, plan.projection.backbone, ("project",))
    decided = asdict(replace(plan, projection=None))
    context["ti"].xcom_push(key="decided", value=decided)
    return asdict(planned)


def _model_plan(planned: Planned, decided: dict[str, Any]) -> refit.ModelPlan:
    text = tables().warehouse.read(plan_path(planned.input_digest))
    judged = Promotion(**decided["judged"]) if decided["judged"] else None
    return refit.ModelPlan(**{**decided, "judged": judged, "projection": ProjectionPlan.from_json(text)})


@task(task_id="validate", trigger_rule=AFTER_SKIPS)
def validate_model(planned: dict[str, Any]) -> str:
    """Audit the models and the rows that were projected with them; fails closed."""
    plan = Planned(**planned)
    projection = ProjectionPlan.from_json(tables().warehouse.read(plan_path(plan.input_digest)))
    with airflow_outcomes():
        for one in projection.projections:
            model = read_model(tables().warehouse, one.model.model_id)
            basis = model.basis
            spectrum = (basis.explained_variance, basis.explained_variance_ratio)
            audit_model(basis.mean, basis.components, *spectrum, model.moments.n).raise_if_failed()
        audit_projection(tables().warehouse, projection, _required_report(plan, "project")).raise_if_failed()
    return "passed"


@task(task_id="publish")
def publish_model(planned: dict[str, Any], verdict: str) -> None:
    """Commit the projected rows of all planned models and batches at once, then promote a new model."""
    context = get_current_context()
    log.info("publishing verdict=%s", verdict)
    plan = Planned(**planned)
    decided = context["ti"].xcom_pull(task_ids="plan_model", key="decided")
    with airflow_outcomes():
        refit.publish_model(tables(), _model_plan(plan, decided), _required_report(plan, "project"), context["dag_run"].run_id)


@task
def clean_warehouse() -> None:
    """Remove the files that nothing needs any more and that are older than the retention."""
    with airflow_outcomes():
        tables().create_all()
        removed = clean(tables(), settings(), datetime.now(UTC), timedelta(days=settings().retention_days))
    for total in removed:
        log.info("removed kind=%s files=%s bytes=%s", total.kind, total.files, total.size_bytes)
    if not removed:
        raise AirflowSkipException(f"nothing that nothing needs is older than {settings().retention_days} days")
