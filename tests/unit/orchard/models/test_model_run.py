"""The use cases of a pca_model run: outcomes as values, and the decision as a file."""

from orchard.models import run
from orchard.models.model_plan import read_model_plan, read_projection
from orchard.outcomes import Done, Failed, Skipped
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.columns import MODEL_RUNS
from support.fake_jobs import FakeJobs
from support.faked_flow import run_batch, run_model, value_of
from support.published_batches import DAYS, publish_days
from support.warehouse_faults import overwritten


def planned_fit(tables: Tables, settings: Settings) -> PlannedJobs:
    publish_days(tables, settings, DAYS[0])
    planned = value_of(run.plan(tables, settings, "run"))
    FakeJobs(tables, {}).project(read_projection(tables.warehouse, planned.input_digest))
    return planned


def test_a_decision_is_read_back_as_it_was_made(tables: Tables, settings: Settings) -> None:
    planned = planned_fit(tables, settings)
    assert planned.decision is not None
    decided = read_model_plan(tables.warehouse, planned.decision)
    assert decided.action == "fit"
    assert decided.projection is not None
    assert decided.projection.digest == planned.input_digest


def test_a_run_without_batches_is_skipped(tables: Tables, settings: Settings) -> None:
    assert run.plan(tables, settings, "run") == Skipped("nothing to project: no batch is published yet")
    assert isinstance(run.find_pending(tables, settings), Skipped)


def test_a_run_that_cannot_fit_records_why(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], {f"images/{DAYS[0]}/kiwi/a.jpg": b"one image has no variance"})
    assert isinstance(run.plan(tables, settings, "run"), Skipped)
    (row,) = tables.rows(MODEL_RUNS)
    assert (row["run_id"], row["action"]) == ("run", "none")


def test_damaged_rows_fail_the_validation(tables: Tables, settings: Settings) -> None:
    planned = planned_fit(tables, settings)
    (staged,) = planned.required_report(tables.warehouse, "project").partitions
    with overwritten(tables.warehouse, staged.files[0].path):
        assert isinstance(run.validate(tables, planned), Failed)
    assert run.validate(tables, planned) == Done("passed")


def test_a_later_promotion_supersedes_a_run(tables: Tables, settings: Settings) -> None:
    planned = planned_fit(tables, settings)
    publish_days(tables, settings, DAYS[1])
    run_model(tables, settings, "faster")
    assert isinstance(run.publish(tables, planned, "slow"), Skipped)
