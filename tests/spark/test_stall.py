"""A job without progress is cancelled, with a reason; one with progress is not."""

import threading
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from orchard_jobs.contract.layout import ProgressPath
from orchard_jobs.errors import JobError
from orchard_jobs.stages import stall
from orchard_jobs.stages.spark_progress import SparkProgress
from orchard_jobs.stages.stall import ended_when_stalled
from orchard_jobs.stages.workers import Task, Workers
from orchard_jobs.storage import Warehouse

WORK = "e" * 64


def waiting_for(mark: Path) -> Task:
    """Return a task whose second number waits for a file. A closure: no worker can import this module."""

    def task(number: int) -> str:
        while number == 1 and not mark.exists():
            time.sleep(0.05)
        return str(number)

    return task


def test_a_job_that_hangs_in_a_worker_is_cancelled_with_a_reason(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stall, "_POLL_SECONDS", 0.2)
    with (
        pytest.raises(JobError, match=r"no progress for 0\.1 minutes at stage reduce"),
        ended_when_stalled(workers, Warehouse.at(str(tmp_path)), "reduce", WORK, 0.1),
    ):
        workers.run(2, waiting_for(tmp_path / "never"))
    assert "JobError: no progress for 0.1 minutes at stage reduce" in capsys.readouterr().err
    (tmp_path / "never").touch()
    assert workers.run(2, waiting_for(tmp_path / "never")) == ["0", "1"]


def test_what_fails_by_itself_keeps_its_error(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its own"), ended_when_stalled(workers, Warehouse.at(str(tmp_path)), "reduce", WORK, 15):
        raise ValueError("its own")


def is_further(found: object, before: object) -> bool:
    return isinstance(found, dict) and isinstance(before, dict) and sum(found.values()) > sum(before.values())


class Queueing:
    """A session, and its context and status tracker, with one stage, of which so many tasks run."""

    def __init__(self, running: int) -> None:
        self.sparkContext = self
        self.running = running

    def statusTracker(self) -> "Queueing":
        return self

    def getActiveStageIds(self) -> list[int]:
        return [7]

    def getStageInfo(self, stage: int) -> SimpleNamespace:
        return SimpleNamespace(stageId=stage, numCompletedTasks=2, numActiveTasks=self.running)


@pytest.mark.parametrize(("running", "is_stalled"), [(1, True), (0, False)])
def test_the_time_that_spark_waits_for_executors_does_not_count(running: int, is_stalled: bool) -> None:
    session: Any = Queueing(running)
    spark = SparkProgress(session)
    assert (spark.finished_tasks() == spark.finished_tasks()) is is_stalled


@pytest.mark.parametrize(("running", "done", "is_stalled"), [(1, False, True), (0, False, False), (0, True, True)])
def test_spark_connect_reports_whether_it_waits_for_executors(running: int, done: bool, is_stalled: bool) -> None:
    handlers: list[Any] = []
    session: Any = SimpleNamespace(registerProgressHandler=handlers.append)
    spark = SparkProgress(session)
    stage = SimpleNamespace(stage_id=7, num_completed_tasks=2)
    (report,) = handlers
    report(stages=[stage], inflight_tasks=running, operation_id="x", done=done)
    assert (spark.finished_tasks() == spark.finished_tasks()) is is_stalled


def test_spark_tells_how_many_tasks_have_finished(workers: Workers, tmp_path: Path) -> None:
    spark = SparkProgress(workers.spark)
    before = spark.finished_tasks()
    running = threading.Thread(target=workers.run, args=(2, waiting_for(tmp_path / "mark")))
    running.start()
    try:
        while running.is_alive() and not is_further(spark.finished_tasks(), before):
            time.sleep(0.05)
        assert running.is_alive(), "the first task finished, and nobody was told"
    finally:
        (tmp_path / "mark").touch()
        running.join()


def test_tasks_of_the_driver_and_counted_images_are_progress(workers: Workers, tmp_path: Path) -> None:
    own, warehouse = Workers(workers.spark, "spark"), Warehouse.at(str(tmp_path))
    progress = stall._Progress(SparkProgress(own.spark), own, warehouse, WORK)
    seen = [progress()]
    own.run(1, str)
    seen.append(progress())
    for _ in range(2):
        warehouse.rewrite(str(ProgressPath(WORK, "0" * 16, "x.json")), b"{}")
        seen.append(progress())
    assert progress() == seen[-1]
    assert all(first != second for first, second in zip(seen, seen[1:], strict=False))


def test_a_job_with_progress_goes_on() -> None:
    over, numbers = threading.Event(), count()

    def progress() -> int:
        number = next(numbers)
        if number == 50:
            over.set()
        return number

    watch = stall._Watch(progress, lambda: pytest.fail("cancelled"), "featurize", 0.0001, over)
    watch.run()
    assert not watch.is_stalled


def test_a_driver_that_does_not_notice_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    over, ended = threading.Event(), threading.Event()
    monkeypatch.setattr(stall, "_CANCEL_SECONDS", 0.01)
    monkeypatch.setattr(stall, "_end_process", ended.set)
    watch = stall._Watch(lambda: 0, lambda: None, "featurize", 0.0001, over)
    watch.run()
    assert ended.is_set()
