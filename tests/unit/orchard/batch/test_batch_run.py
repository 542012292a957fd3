"""The use cases of a batch's run: the order of their steps, and outcomes as values."""

from dataclasses import replace

import pytest
from orchard.batch import run
from orchard.batch.cost import executor_hours
from orchard.batch.manifests import read_entries, read_head
from orchard.landing_zone.batch_lock import BatchLock, RunName
from orchard.outcomes import Done, Failed, Outcome, Skipped
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.contract.views import parse_views
from orchard_jobs.errors import ConfigurationError
from support.changed_settings import with_variables
from support.fake_jobs import BROKEN, FakeJobs
from support.faked_flow import LENIENT, lock_of, plan, run_batch, run_model, stage_and_publish, value_of
from support.faults import killed_after
from support.listed_bucket import ENCRYPTED, ListedBucket
from support.published_batches import bucket_of
from support.state_store import Memory
from support.warehouse_faults import overwritten

DAY, NEXT = "2026-01-01", "2026-01-02"
KEY = f"images/{DAY}/kiwi/a.jpg"


def ready(backbone: Backbone) -> None:
    """Stand for a target that can load every backbone."""


def plan_of(tables: Tables, settings: Settings, bucket: dict[str, bytes]) -> Outcome[PlannedJobs]:
    return run.plan(tables, settings, lock_of(DAY), ListedBucket(bucket), ready)


def staged(tables: Tables, settings: Settings, bucket: dict[str, bytes]) -> PlannedJobs:
    """Return a plan whose jobs are finished."""
    planned = value_of(plan_of(tables, settings, bucket))
    head = read_head(tables.warehouse, planned.input_digest)
    FakeJobs(tables, bucket).featurize(head)
    return planned


def test_a_run_withdraws_its_promise_before_it_lists(tables: Tables, settings: Settings) -> None:
    """Later, an upload between the listing and the promise's end would be left to a run that has listed already."""
    store = Memory()
    lock = BatchLock(DAY, RunName("image_batches", "run"), store, lambda name, states: True)
    other = replace(lock, me=RunName("image_batches", "other"))
    promised = []
    lock.promise_listing()
    bucket = ListedBucket({KEY: b"a"}, before_listing=lambda: promised.append(other.run_that_will_list()))
    run.plan(tables, settings, lock, bucket, ready)
    assert promised == [None]


def test_a_target_that_cannot_load_the_backbone_fails_the_plan(tables: Tables, settings: Settings) -> None:
    def refuse(backbone: Backbone) -> None:
        raise ConfigurationError(f"no weights of {backbone.id}")

    outcome = run.plan(tables, settings, lock_of(DAY), ListedBucket({KEY: b"a"}), refuse)
    assert isinstance(outcome, Failed)
    assert "no weights" in str(outcome.error)


def test_the_store_is_asked_whether_it_encrypts(tables: Tables, settings: Settings) -> None:
    planned = value_of(plan_of(tables, settings, {KEY: ENCRYPTED + b"1 same"}))
    (entry,) = read_entries(tables.warehouse, read_head(tables.warehouse, planned.input_digest))
    assert entry.group == str(entry.size_bytes), "an ETag tells nothing under SSE-KMS"


def test_a_batch_that_costs_too_much_fails_the_plan(tables: Tables, settings: Settings) -> None:
    outcome = plan_of(tables, with_variables(settings, ORCHARD_TARGET="emr", ORCHARD_MAX_EXECUTOR_HOURS=0.0), {KEY: b"a"})
    assert isinstance(outcome, Failed)
    assert "ORCHARD_MAX_EXECUTOR_HOURS" in str(outcome.error)


@pytest.mark.parametrize(("views", "limit"), [("whole", 0.05), ("centre:0.6,centre:0.7,centre:0.8,centre:0.9", 0.2)])
def test_the_cost_grows_with_the_views(settings: Settings, views: str, limit: float) -> None:
    backbone = backbone_named("efficientnet_lite0", views=parse_views(views))
    head = ManifestHead(DAY, backbone, 1, None, 10**8, 12_000, 0, {"compute": 12_000}, (), (), ())
    one_core = with_variables(settings, ORCHARD_TARGET="emr", ORCHARD_EXECUTOR_CORES=4)
    assert executor_hours(head, one_core) == pytest.approx(limit)


def test_an_unchanged_batch_is_skipped(tables: Tables, settings: Settings) -> None:
    head = plan(tables, settings, DAY, {KEY: b"a"})
    assert head is not None
    stage_and_publish(tables, head, FakeJobs(tables, {KEY: b"a"}))
    outcome = plan_of(tables, settings, {KEY: b"a"})
    assert isinstance(outcome, Skipped)
    assert f"batch {DAY} is unchanged" in outcome.reason


def test_damaged_rows_fail_the_validation(tables: Tables, settings: Settings) -> None:
    planned = staged(tables, settings, {KEY: b"a"})
    (features,) = planned.required_report(tables.warehouse, "featurize").of_table("features")
    with overwritten(tables.warehouse, features.files[0].path):
        assert isinstance(run.validate(tables, LENIENT, planned), Failed)
    assert run.validate(tables, LENIENT, planned) == Done("passed")


def test_the_setting_says_how_many_bad_images_are_too_many(tables: Tables, settings: Settings) -> None:
    bad = {f"images/{DAY}/kiwi/bad{n}.jpg": BROKEN + b"%d" % n for n in range(12)}
    planned = staged(tables, settings, {KEY: b"a"} | bad)
    refused = run.validate(tables, with_variables(settings, ORCHARD_MAX_QUARANTINED_SHARE=0.9), planned)
    assert isinstance(refused, Failed)
    assert "12 of 13 images are quarantined" in str(refused.error)
    assert run.validate(tables, with_variables(settings, ORCHARD_MAX_QUARANTINED_SHARE=0.95), planned) == Done("passed")


def test_a_verdict_tells_the_warnings(tables: Tables, settings: Settings) -> None:
    planned = staged(tables, settings, {KEY: BROKEN})
    verdict = value_of(run.validate(tables, settings, planned))
    assert verdict == f"passed; batch {DAY} has no good image: 1 of 1 are quarantined"


def test_a_faster_run_of_the_batch_supersedes_a_slow_one(tables: Tables, settings: Settings) -> None:
    slow = staged(tables, settings, {KEY: b"a"})
    fast = staged(tables, settings, {KEY: b"b"})
    value_of(run.publish(tables, LENIENT, fast, "passed", "fast"))
    assert isinstance(run.publish(tables, LENIENT, slow, "passed", "slow"), Skipped)


def test_lineage_gets_the_published_version(tables: Tables, settings: Settings) -> None:
    planned = staged(tables, settings, {KEY: b"a"})
    value_of(run.publish(tables, LENIENT, planned, "passed", "run"))
    told: list[run.LineageRecord] = []
    assert run.record(tables, planned, {"features": 1}, "run", told.append) == Done(None)
    (batch,) = told
    assert (batch.head.digest, batch.featurized.stage, batch.reduced) == (planned.input_digest, "featurize", None)


def test_lineage_gets_the_reduced_rows_of_a_batch_with_a_model(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, NEXT, bucket_of(NEXT))
    run_model(tables, settings)
    planned = staged(tables, settings, {KEY: b"a"})
    head = read_head(tables.warehouse, planned.input_digest)
    jobs = FakeJobs(tables, {KEY: b"a"})
    jobs.reduce(head, jobs.featurize(head))
    told: list[run.LineageRecord] = []
    run.record(tables, planned, {}, "run", told.append)
    assert [batch.reduced.stage for batch in told if batch.reduced] == ["reduce"]


def test_reconciling_finds_what_differs_and_what_was_left_half_way(
    monkeypatch: pytest.MonkeyPatch, tables: Tables, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    gone = {f"images/{NEXT}/kiwi/gone.jpg": b"gone"}
    head = plan(tables, settings, NEXT, gone)
    assert head is not None
    with killed_after(2, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, gone))
    assert run.reconcile(tables, settings, ListedBucket({KEY: b"a"})) == Done((DAY, NEXT))
    other_format = with_variables(settings, ORCHARD_BATCH_KEY_FORMAT="%Y%m%d")
    assert isinstance(run.reconcile(tables, other_format, ListedBucket({KEY: b"a"})), Skipped)
    assert f"batch {NEXT} was left half-way, and is not a key" in caplog.text
