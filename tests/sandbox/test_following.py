"""Runs are followed to their end, and what the user sees of them is right, with an Airflow that is made up."""

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from orchard_sandbox.errors import SandboxError
from orchard_sandbox.stack import following
from orchard_sandbox.stack.following import Follower
from orchard_sandbox.stack.published import PublishedBatch, pending_work, published_batches, read_counts, running_count
from orchard_sandbox.stack.runs import Count, RunResult, RunView, busy_task, end_of_log, failed_task, outcome_of, reason_of
from orchard_sandbox.stack.screen import BatchResult, Screen
from support.made_up_airflow import MadeUpAirflow, instance


@pytest.mark.parametrize(
    ("state", "instances", "outcome"),
    [
        ("success", [instance("plan_batch", "success"), instance("publish", "success")], "published"),
        ("success", [instance("wait_for_uploads", "skipped"), instance("plan_batch", "skipped")], "empty"),
        ("success", [instance("plan_batch", "skipped"), instance("publish", "skipped")], "unchanged"),
        ("success", [instance("plan_batch", "success"), instance("publish", "skipped")], "superseded"),
        ("failed", [instance("plan_batch", "skipped")], "failed"),
    ],
)
def test_an_ended_run_is_named_by_its_tasks(state: str, instances: list[dict[str, Any]], outcome: RunResult) -> None:
    assert outcome_of({"state": state}, instances) == outcome


def test_the_task_at_work_is_the_running_one_then_the_waiting_ones() -> None:
    assert busy_task([instance("a", "success"), instance("b", "deferred"), instance("c", None)]) == ("b", "deferred")
    assert busy_task([instance("a", "scheduled"), instance("b", "running")]) == ("b", "running")
    assert busy_task([instance("a", "success")]) == ("", "")


def test_a_failure_names_the_first_failed_task_and_its_exception() -> None:
    failed = failed_task([instance("late", "failed", end="2"), instance("first", "failed", end="1"), instance("x", "success")])
    assert failed is not None
    assert failed["task_id"] == "first"
    assert failed_task([instance("x", "success")]) is None
    log: list[dict[str, Any] | str] = [
        {"event": "::group::Pre"},
        {"event": "line 1\nline 2"},
        {"event": "Task failed", "error_detail": [{"exc_type": "ValueError", "exc_value": "no such fruit"}]},
        "plain",
    ]
    assert reason_of(log) == "ValueError: no such fruit"
    assert reason_of(["plain"]) == ""
    assert end_of_log(log) == ["line 1", "line 2", "Task failed", "plain"]
    assert len(end_of_log([str(number) for number in range(100)])) == 40


def test_counts_of_all_workers_are_summed_but_for_half_written_ones(tmp_path: Path) -> None:
    environment = {"ORCHARD_WAREHOUSE": f"file://{tmp_path}"}
    plan = {"input_digest": "ab" * 32, "backbone": "efficientnet_lite0-0123"}
    assert running_count(environment, plan, "featurize") is None
    assert running_count({"ORCHARD_WAREHOUSE": "s3://elsewhere"}, plan, "featurize") is None
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "1.json").write_text('{"done": 9, "total": 9}')
    time.sleep(0.01)
    (tmp_path / "latest").mkdir()
    for name, text in (("1", '{"done": 3, "total": 9}'), ("2", '{"done": 4, "total": 9}'), ("3", '{"do'), ("4", "[]")):
        (tmp_path / "latest" / f"{name}.json").write_text(text)
    assert read_counts(tmp_path) == Count(7, 9)


def test_a_warehouse_without_tables_has_nothing_to_do(tmp_path: Path) -> None:
    environment = {"ORCHARD_WAREHOUSE": f"file://{tmp_path}"}
    assert published_batches(environment) == {}
    assert pending_work(environment) == {}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_is_written_when_something_changes() -> None:
    seconds = [0.0]
    screen = Screen(io.StringIO(), lambda: seconds[0])
    for seconds[0], view in (
        (0.0, RunView("b", "running", "featurize", Count(0, 60))),
        (2.0, RunView("b", "running", "featurize", Count(10, 60))),
        (4.0, RunView("b", "running", "")),
        (12.0, RunView("b", "running", "featurize", Count(48, 60))),
        (13.0, RunView("b", "success", "published")),
        (30.0, RunView("b", "success", "published")),
    ):
        screen.show([view])
    assert isinstance(screen.stream, io.StringIO)
    assert [" ".join(line.split()) for line in screen.stream.getvalue().splitlines()] == [
        "b running featurize 0 of 60 images",
        "b running featurize 48 of 60 images 4.0 images/s",
        "b success published",
    ]


def test_on_a_terminal_the_block_is_redrawn_and_never_higher_than_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    screen = Screen(Terminal())
    views = [RunView(str(number), "success" if number < 5 else "queued", "x" * 80) for number in range(40)]
    screen.show(views)
    screen.show(views)
    assert isinstance(screen.stream, io.StringIO)
    text = screen.stream.getvalue()
    assert text.count("\x1b[1A") == 8  # from below the eight lines up to the first
    assert text.count("5 of 40 runs done") == 2
    assert max(len(line) for line in re.sub(r"\x1b\[\d*[A-Z]", "", text).splitlines()) <= 40


def test_the_table_has_a_dash_where_nothing_is_published() -> None:
    stream = io.StringIO()
    Screen(stream).show_results(
        [
            BatchResult("2026-01-05", "published", 41.4, PublishedBatch(66, 64, 1, 1, 0.8912)),
            BatchResult("2026-01-06", "failed", None, None),
        ]
    )
    assert [line.split() for line in stream.getvalue().splitlines()] == [
        ["batch", "listed", "featurized", "reused", "quarantined", "captured", "seconds"],
        ["2026-01-05", "66", "64", "1", "1", "89.1%", "41", "published"],
        ["2026-01-06", "-", "-", "-", "-", "-", "-", "failed"],
    ]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return {"ORCHARD_WAREHOUSE": f"file://{tmp_path}"}


def follower(airflow: MadeUpAirflow, environment: dict[str, str]) -> Follower:
    made_up: Any = airflow
    return Follower(made_up, environment, lambda: None, Screen(io.StringIO()))


def test_runs_are_started_with_no_quiet_period_and_followed_to_their_end(environment: dict[str, str]) -> None:
    airflow = MadeUpAirflow("queued", "queued", "running", "running", "success")
    one = follower(airflow, environment)
    one.start(["2026-01-05", "2026-01-06"])
    assert airflow.started[0] == ("image_batches", "2026-01-05", {"quiet_seconds": 0})
    one.settle(has_uploaded=False)
    assert [(result.batch, result.outcome, result.seconds) for result in one.results()] == [
        ("2026-01-05", "published", 1.5),
        ("2026-01-06", "published", 1.5),
    ]


def test_a_run_that_is_still_queued_is_taken(environment: dict[str, str]) -> None:
    airflow = MadeUpAirflow("queued")
    airflow.started = [("image_batches", "2026-01-05", {"quiet_seconds": 0}), ("image_batches", "2026-01-06", {})]
    follower(airflow, environment).start(["2026-01-05", "2026-01-06"])
    assert airflow.started[2:] == [("image_batches", "2026-01-06", {"quiet_seconds": 0})]


def test_a_batch_that_an_event_started_is_followed_and_not_started_again(environment: dict[str, str]) -> None:
    airflow = MadeUpAirflow("success")
    airflow.arrive("2026-01-05", "running", "2026-01-01T00:00:01Z", wait_for_uploads="deferred")
    one = follower(airflow, environment)
    one.start(["2026-01-05", "2026-01-06"])
    assert [key for _, key, _ in airflow.started] == ["2026-01-06"]
    airflow.arrived[0] |= {"state": "success", "tasks": {"plan_batch": "success", "publish": "success"}}
    airflow.arrive("2026-01-05", "success", "2026-01-01T00:00:02Z", wait_for_uploads="skipped")
    airflow.arrive("2026-01-05", "success", "2026-01-01T00:00:03Z", plan_batch="skipped")
    airflow.arrive("2026-01-06", "failed", "9999-01-01T00:00:00Z", validate="failed")
    one.settle(has_uploaded=False)
    assert [(result.batch, result.outcome) for result in one.results()] == [("2026-01-05", "published"), ("2026-01-06", "failed")]
    assert one.failed_runs() == [("image_batches_on_arrival", "arrived-3")]


def test_a_published_batch_that_is_looked_at_again_says_so(environment: dict[str, str]) -> None:
    airflow = MadeUpAirflow("success")
    airflow.arrive("2026-01-05", "running", "2026-01-01T00:00:01Z", plan_batch="running")
    one = follower(airflow, environment)
    one.start(["2026-01-05"])
    runs = one._runs_by_batch()["2026-01-05"]
    assert one._told("2026-01-05", runs)[1].task == "plan_batch"
    airflow.arrive("2026-01-05", "success", "2026-01-01T00:00:02Z", plan_batch="success", publish="success")
    runs = one._runs_by_batch()["2026-01-05"]
    assert one._told("2026-01-05", runs)[1].task == "again: plan_batch"


def test_runs_that_events_start_late_are_waited_for(environment: dict[str, str]) -> None:
    airflow, unread = MadeUpAirflow("success"), [3, 2, 1]
    one = follower(airflow, environment)
    one.start(["2026-01-05"])

    def messages() -> int:
        if unread == [3]:
            airflow.arrive("2026-01-05", "success", "9999-01-01T00:00:00Z", plan_batch="success", publish="success")
        return unread.pop() if unread else 0

    one.unread = messages
    assert one.settle(has_uploaded=True) is None
    assert unread == []
    assert len(one._runs_by_batch()["2026-01-05"]) == 2
    one.unread = lambda: pytest.fail("nothing was uploaded, so there is no message to wait for")
    one.settle(has_uploaded=False)


def test_a_run_that_was_deleted_is_told(environment: dict[str, str]) -> None:
    airflow = MadeUpAirflow("running")
    one = follower(airflow, environment)
    one.start(["2026-01-05"])
    airflow.started.clear()
    with pytest.raises(SandboxError, match="run image_batches-1 of image_batches is gone"):
        one.settle(has_uploaded=False)


def test_a_failed_run_tells_why(environment: dict[str, str]) -> None:
    airflow = MadeUpAirflow("running", "running", "failed")
    one = follower(airflow, environment)
    one.start(["2026-01-05"])
    one.settle(has_uploaded=False)
    assert [result.outcome for result in one.results()] == ["failed"]
    ((dag_id, run_id),) = one.failed_runs()
    assert one.failures(dag_id, run_id) == "task featurize failed: E: why\n    the end"


def test_pca_model_is_started_where_work_is_left_and_nothing_runs(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = MadeUpAirflow("success")
    monkeypatch.setattr(following, "pending_work", lambda _: {} if airflow.started else {"pca_model": "a batch lacks"})
    one = follower(airflow, environment)
    one.start([])
    assert one.settle(has_uploaded=False) is None
    assert airflow.started == [("pca_model", None, {})]


def test_work_that_never_ends_and_a_missing_dag_do_not_hang(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "pending_work", lambda _: {"pca_model": "a batch lacks"})
    airflow = MadeUpAirflow("success")
    one = follower(airflow, environment)
    one.start([])
    with pytest.raises(SandboxError, match="is not done: a batch lacks"):
        one.settle(has_uploaded=False)
    assert len(airflow.started) == 3
    other = follower(MadeUpAirflow("success", has_model=False), environment)
    other.start([])
    assert other.settle(has_uploaded=False) is None


def test_progress_files_are_what_the_jobs_write(tmp_path: Path) -> None:
    from dataclasses import asdict

    from orchard_jobs.contract.jobs import Progress

    (tmp_path / "attempt").mkdir()
    (tmp_path / "attempt" / "x.json").write_text(json.dumps(asdict(Progress(2, 5))))
    assert read_counts(tmp_path) == Count(2, 5)
