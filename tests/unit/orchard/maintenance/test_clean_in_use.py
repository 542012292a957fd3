"""clean: what a run, a reader or another cleaning still needs stays."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from orchard.batch.publish import publish_batch
from orchard.maintenance.clean import find_removals, remove
from orchard.models.publish import publish_model
from orchard.models.refit import pending_work, plan_model
from orchard.settings import Settings
from orchard.tables import delta_log
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, MODELS, PCA_FEATURES, QUARANTINE, RUNS
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.layout import report_path
from support.changed_settings import with_variables
from support.cleaning import DAYS, FACTS, WEEK, bucket_of, check_whole, clean, contents, stage_refused
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, project_model, publish_projected, rows, run_batch, run_model, stage_and_publish
from support.faults import killed_after
from support.warehouse_files import age, stored


def test_what_a_task_is_publishing_outlives_its_report(used: Tables, settings: Settings) -> None:
    """The report was read, then it is cleaned away, then the commits are made: the files must still be there."""
    head = stage_refused(used, settings)
    jobs = FakeJobs(used, {})
    featurized = jobs.featurize(head)
    reduced = jobs.reduce(head, featurized)
    age(used)
    assert "report" in {removal.kind for removal in clean(used, settings)}
    assert used.warehouse.size(report_path(featurized.work)) is None
    clean(used, settings)
    publish_batch(used, head, featurized, reduced, FACTS)
    clean(used, settings)
    age(used)
    clean(used, settings)
    assert len(list(used.rows(FEATURES, batch_id=DAYS[1]))) == 7


def test_a_model_that_a_task_is_publishing_outlives_its_plan(used: Tables, settings: Settings) -> None:
    decided = plan_model(used, with_variables(settings, ORCHARD_COMPONENTS=1))
    assert decided.projection is not None
    report = FakeJobs(used, {}).project(decided.projection)
    age(used)
    assert "plan" in {removal.kind for removal in clean(used, settings)}
    clean(used, settings)
    publish_model(used, decided, report, "late")
    age(used)
    clean(used, settings)
    assert len(rows(used, MODELS)) == 3
    assert pending_work(used, with_variables(settings, ORCHARD_COMPONENTS=1)) is None
    assert {row["model_id"] for row in used.rows(PCA_FEATURES)} >= {decided.projection.projections[0].model.model_id}


@pytest.mark.parametrize("commits", [1, 2, 3])
def test_a_version_that_was_left_half_way_rolls_forward_however_old(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    run_model(tables, settings)
    bucket = bucket_of(DAYS[0], "new")
    head = plan(tables, settings, DAYS[0], bucket)
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket))
    current = [file.path for file in tables.load(FEATURES, 1).files()]
    for _ in range(3):
        age(tables)
        clean(tables, settings)
    assert all(tables.warehouse.size(path) is not None for path in current), "the runs row still names them"
    assert run_batch(tables, settings, DAYS[0], bucket, "retry").network_runs == []
    assert {row["manifest_digest"] for table in (FEATURES, QUARANTINE) for row in tables.rows(table)} == {head.digest}
    assert len(rows(tables, RUNS)) == 2


def test_what_was_replaced_lately_stays_for_its_readers(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    old = {file.path for table in (FEATURES, QUARANTINE) for file in tables.load(table).files()}
    age(tables)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], "new"))
    clean(tables, settings)
    assert all(tables.warehouse.size(path) is not None for path in old), "they are old, but were replaced just now"
    age(tables)
    assert old <= {removal.path for removal in clean(tables, settings) if removal.kind == "replaced"}


def test_a_file_that_a_clock_ahead_of_ours_replaced_stays(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    old = {file.path for table in (FEATURES, QUARANTINE) for file in tables.load(table).files()}
    age(tables)
    monkeypatch.setattr(delta_log, "time", SimpleNamespace(time=lambda: time.time() + 7200))
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], "new"))
    clean(tables, settings)
    assert all(tables.warehouse.size(path) is not None for path in old)
    age(tables)
    assert old <= {removal.path for removal in clean(tables, settings) if removal.kind == "replaced"}


def test_old_work_that_is_taken_up_during_a_cleaning_stays(used: Tables, settings: Settings) -> None:
    head = stage_refused(used, settings)
    age(used)
    now = datetime.now(UTC)
    removals = find_removals(used, settings, now, WEEK)
    assert stage_refused(used, settings) == head
    work = work_digest(head.digest, head.backbone.id, "featurize")
    assert report_path(work) in {removal.path for removal in removals}
    assert report_path(work) not in {removal.path for removal in remove(used, removals, now, WEEK)}
    stage_and_publish(used, head, FakeJobs(used, {}))
    clean(used, settings)
    assert len(list(used.rows(FEATURES, batch_id=DAYS[1]))) == 7


def test_work_that_a_cleaning_removes_is_not_taken_up(used: Tables, settings: Settings) -> None:
    head = stage_refused(used, settings)
    age(used)
    clean(used, settings)
    assert stage_refused(used, settings).number == head.number + 1


def test_an_old_manifest_that_is_planned_again_stays(tables: Tables, settings: Settings) -> None:
    bucket = bucket_of(DAYS[0])
    first = plan(tables, settings, DAYS[0], bucket)
    age(tables)
    head = plan(tables, settings, DAYS[0], bucket)
    assert head is not None
    assert head == first
    assert clean(tables, settings) == ()
    report = FakeJobs(tables, bucket).featurize(head)
    age(tables)
    assert plan(tables, settings, DAYS[0], bucket) == head
    assert clean(tables, settings) == ()
    publish_batch(tables, head, report, None, FACTS)


def test_an_old_projection_that_is_planned_again_stays(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    first = plan_model(tables, settings)
    age(tables)
    assert plan_model(tables, settings) == first
    clean(tables, settings)
    run_model(tables, settings)
    assert pending_work(tables, settings) is None


def test_an_old_decision_stays_while_its_projection_goes_on(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    planned = project_model(tables, settings)
    age(tables)
    assert project_model(tables, settings) == planned
    clean(tables, settings)
    publish_projected(tables, planned)
    assert pending_work(tables, settings) is None


def test_the_files_of_work_that_goes_on_stay(tables: Tables, settings: Settings) -> None:
    """A job that runs for longer than the retention is known by its running counts."""
    head = plan(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert head is not None
    work = work_digest(head.digest, head.backbone.id, "featurize")
    staged = f"features/backbone={head.backbone.id}/batch_id={DAYS[0]}/{work}/{'a' * 16}/part-00000.parquet"
    scratch = f"_work/{work}/scratch/{'a' * 16}/outcomes/part-00000.parquet"
    for path in (staged, scratch):
        tables.warehouse.create(path, b"rows")
    age(tables)
    tables.warehouse.create(f"_work/{work}/progress/{'a' * 16}/1.json", b"{}")
    assert clean(tables, settings) == ()
    age(tables)
    assert {removal.kind for removal in clean(tables, settings)} == {"staged", "scratch", "manifest"}
    age(tables)
    assert {removal.kind for removal in clean(tables, settings)} == {"note"}
    assert {path for path in stored(tables) if "/_delta_log/" not in path} == set()


def test_two_cleanings_at_once_do_no_harm(used: Tables, settings: Settings) -> None:
    before = contents(used)
    age(used)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: clean(used, settings, timedelta(0)), range(4)))
    assert clean(used, settings, timedelta(0)) == ()
    check_whole(used, settings, before)
