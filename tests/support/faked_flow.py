"""The use cases of a run in the order of the DAGs, with fake jobs between them and a bucket in memory."""

from collections.abc import Mapping
from typing import Any, TypeVar
from unittest.mock import patch

from orchard.batch import run as batch_run
from orchard.batch.manifests import read_head
from orchard.landing_zone.batch_lock import BatchLock, RunName
from orchard.models import run as model_run
from orchard.models.kinds import PCA, Kind
from orchard.models.model_plan import ModelPlan, read_model_plan, read_projection
from orchard.models.refit import plan_model
from orchard.outcomes import Failed, Outcome, Skipped
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import SupersededError

from support.fake_jobs import FakeJobs
from support.listed_bucket import ListedBucket
from support.state_store import Memory

T = TypeVar("T")
# Every share of bad images passes.
LENIENT = Settings.from_environment({"ORCHARD_WAREHOUSE": "/never/written", "ORCHARD_MAX_QUARANTINED_SHARE": "1"})


def value_of(outcome: Outcome[T]) -> T:
    """Return a finished use case's value; raise what the others ended with."""
    if isinstance(outcome, Skipped):
        raise SupersededError(outcome.reason)
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome.value


def lock_of(batch_id: str) -> BatchLock:
    """Return the lock of a batch that has one run alone."""
    return BatchLock(batch_id, RunName("image_batches", "run"), Memory(), lambda name, states: False)


def plan(tables: Tables, settings: Settings, batch_id: str, bucket: Mapping[str, bytes]) -> ManifestHead | None:
    """Plan a batch; None when it is unchanged."""
    planned = batch_run.plan(tables, settings, lock_of(batch_id), ListedBucket(bucket), lambda backbone: None)
    return None if isinstance(planned, Skipped) else read_head(tables.warehouse, value_of(planned).input_digest)


def stage_and_publish(tables: Tables, head: ManifestHead, jobs: FakeJobs, run_id: str = "run") -> None:
    """Run the jobs of a manifest, validate and publish; SupersededError when a later run of the batch has already published."""
    planned = PlannedJobs.of_batch(tables.warehouse, head)
    jobs.reduce(head, jobs.featurize(head))
    verdict = value_of(batch_run.validate(tables, LENIENT, planned))
    value_of(batch_run.publish(tables, LENIENT, planned, verdict, run_id))


def run_batch(tables: Tables, settings: Settings, batch_id: str, bucket: Mapping[str, bytes], run_id: str = "run") -> FakeJobs:
    """Run image_batches for one batch; return the jobs that it ran."""
    jobs = FakeJobs(tables, bucket)
    head = plan(tables, settings, batch_id, bucket)
    if head is not None:
        stage_and_publish(tables, head, jobs, run_id)
    return jobs


def project_model(tables: Tables, settings: Settings, run_id: str = "model") -> PlannedJobs:
    """Run pca_model up to its job's end, where it has something to project; return its plan."""
    planned = value_of(model_run.plan(tables, settings, run_id))
    FakeJobs(tables, {}).run_planned(read_projection(tables.warehouse, planned.input_digest))
    return planned


def decision_of(tables: Tables, planned: PlannedJobs) -> ModelPlan:
    """Return what a run of pca_model decided."""
    assert planned.decision is not None
    return read_model_plan(tables.warehouse, planned.decision)


def publish_projected(tables: Tables, planned: PlannedJobs, run_id: str = "model") -> None:
    """Publish what pca_model projected; SupersededError when another model was promoted meanwhile."""
    value_of(model_run.publish(tables, planned, run_id))


def run_model(
    tables: Tables, settings: Settings, run_id: str = "model", kind: Kind = PCA, jobs: FakeJobs | None = None
) -> ModelPlan:
    """Run a kind's DAG once; return what it decided."""
    decided: list[ModelPlan] = []

    def decide(tables: Tables, settings: Settings, kind: Kind) -> ModelPlan:
        decided.append(plan_model(tables, settings, kind))
        return decided[-1]

    with patch.object(model_run, "plan_model", decide):
        planned = model_run.plan(tables, settings, run_id, kind)
    if not isinstance(planned, Skipped):
        work = value_of(planned)
        (jobs or FakeJobs(tables, {})).run_planned(read_projection(tables.warehouse, work.input_digest))
        value_of(model_run.validate(tables, work))
        value_of(model_run.publish(tables, work, run_id))
    return decided[-1]


def rows(tables: Tables, table: Table, *ignored: str) -> list[dict[str, Any]]:
    """Return a table's rows, sorted, without provenance columns."""
    found = [{name: value for name, value in row.items() if name not in ignored} for row in tables.rows(table)]
    return sorted(found, key=repr)
