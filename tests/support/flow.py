"""The DAGs' steps as plain calls over a bucket in memory: plan, jobs, audit, publish. What a run does, without Airflow."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from orchard.batch.plan import plan_batch
from orchard.batch.publish import RunFacts, publish_batch
from orchard.models.refit import ModelPlan, plan_model, publish_model, record_model_run
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.audit.batch import AuditPolicy, audit_batch
from orchard_jobs.audit.projection import audit_projection
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import split_image_uri
from orchard_jobs.contract.manifest import ManifestHead

from support.fake_jobs import ENCRYPTED, FakeJobs, listing

POLICY = AuditPolicy(max_quarantined_share=1.0)


def plan(tables: Tables, settings: Settings, batch_id: str, bucket: Mapping[str, bytes]) -> ManifestHead | None:
    prefix = settings.batch_prefix(batch_id)
    own = {key: content for key, content in bucket.items() if key.startswith(prefix)}
    return plan_batch(tables, settings, batch_id, listing(own), partial(is_encrypted, bucket))


def is_encrypted(bucket: Mapping[str, bytes], image_uri: str) -> bool:
    """Tell of an image, as a HEAD request does, whether its ETag is no MD5 though it looks like one."""
    return bucket[split_image_uri(image_uri)[1]].startswith(ENCRYPTED)


def stage_and_publish(tables: Tables, head: ManifestHead, jobs: FakeJobs, run_id: str = "run") -> None:
    featurized = jobs.featurize(head)
    reduced = jobs.reduce(head, featurized)
    verdict = audit_batch(tables.warehouse, head, featurized, reduced, POLICY)
    verdict.raise_if_failed()
    publish_batch(tables, head, featurized, reduced, RunFacts(run_id, "local", "passed"))


def run_batch(tables: Tables, settings: Settings, batch_id: str, bucket: Mapping[str, bytes], run_id: str = "run") -> FakeJobs:
    """Run image_batches for one batch; return the jobs that it ran."""
    jobs = FakeJobs(tables, bucket)
    head = plan(tables, settings, batch_id, bucket)
    if head is not None:
        stage_and_publish(tables, head, jobs, run_id)
    return jobs


def project_model(tables: Tables, settings: Settings) -> tuple[ModelPlan, JobReport]:
    """Run pca_model up to its job's end, where it has something to project; return its plan and the job's report."""
    decided = plan_model(tables, settings)
    assert decided.projection is not None
    return decided, FakeJobs(tables, {}).project(decided.projection)


def run_model(tables: Tables, settings: Settings, run_id: str = "model") -> ModelPlan:
    """Run pca_model once; return its plan."""
    decided = plan_model(tables, settings)
    if decided.projection is None:
        if decided.action != "nothing":
            record_model_run(tables, settings.backbone.id, decided, run_id)
        return decided
    report = FakeJobs(tables, {}).project(decided.projection)
    audit_projection(tables.warehouse, decided.projection, report).raise_if_failed()
    publish_model(tables, decided, report, run_id)
    return decided


def rows(tables: Tables, table: Table, *ignored: str) -> list[dict[str, Any]]:
    """Return a table's rows, sorted, without provenance columns."""
    found = [{name: value for name, value in row.items() if name not in ignored} for row in tables.rows(table)]
    return sorted(found, key=repr)
