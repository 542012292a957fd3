"""The launchers against stand-ins that fail on schedule: never two jobs at once, none replayed, and it ends well."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from orchard.launchers.attempts import Attempts
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.layout import report_path
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse
from support import databricks_stand_in as databricks
from support import emr_stand_in as emr
from support.emr_stand_in import wait_until
from support.fault_targets import ON_SPARK, Ran, Target, databricks_runs, emr_serverless, emr_steps, put_scripts
from support.task_context import TaskContext

# The provider's own way to read a connection's form.
pytestmark = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
SCHEDULES = int(os.environ.get("SOAK_FAULT_SCHEDULES", "5"))
TRIES = 8
ANSWERS = ("throttle", "error", "error_after", "delay", "drop_before", "drop_after")


class Died(BaseException):
    """The task's process was killed."""


def follow_each_other(runs: list[Ran]) -> bool:
    """Tell whether each job began only when the one before had ended."""
    return all(first.ended is not None and first.ended <= second.began for first, second in pairwise(sorted(runs)))


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    first, second = tmp_path_factory.mktemp("emr"), tmp_path_factory.mktemp("databricks")
    options = () if ON_SPARK else ("--without-spark",)
    with emr.serving(first) as aws, databricks.serving(second, second / "objects", *options) as workspace:
        put_scripts(aws)
        found = (emr_serverless(aws), emr_steps(aws), databricks_runs(workspace))
        yield {target.name: target for target in found}


@pytest.mark.parametrize("seed", range(SCHEDULES))
@pytest.mark.parametrize("name", ["emr_serverless", "emr", "databricks"])
def test_whatever_fails_there_are_never_two_jobs(
    name: str, seed: int, targets: dict[str, Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, target = random.Random(seed), targets[name]
    monkeypatch.setattr("orchard.launchers.emr_hook._CLAIMED_SECONDS", 1)
    monkeypatch.setattr("orchard.launchers.emr_hook._CLAIMED_POLL_SECONDS", 0.2)
    target.connect(monkeypatch)
    planned = PlannedJobs("file:///x/head.json", f"{seed:064x}", "backbone-1", ("featurize",))
    work = planned.work("featurize")
    report = str(tmp_path / report_path(work))
    told = []
    record_start = Attempts.record_start
    try:
        for number in range(TRIES):
            target.server.no_faults()
            # The last tries are undisturbed, so that all schedules can end.
            death = draw.choice(("before", "after", "no", "no")) if number < TRIES // 2 else "no"
            for _ in range(draw.choice((0, 1, 2)) if number < TRIES // 2 else 0):
                kind = draw.choice((*ANSWERS, "kill_job", "out_of_memory"))
                told.append((kind, operation := draw.choice(target.operations)))
                target.server.fault(kind, operation=operation, times=draw.choice((1, 3)), seconds=draw.choice((0, 0.5)))

            def die(attempts: Attempts, attempt: int, job: dict[str, str], when: str = death) -> None:
                """Record the start, unless the process is killed just before, or just after."""
                if when != "before":
                    record_start(attempts, attempt, job)
                if when != "no":
                    told.append((f"killed {when} the start was recorded", str(job)))
                    raise Died

            monkeypatch.setattr(Attempts, "record_start", die)
            try:
                target.operator(tmp_path, report, seed).execute(TaskContext(planned))
            except AirflowSkipException:
                break
            except (Died, Exception) as error:
                told.append((type(error).__name__, str(error)[:80]))
        else:
            raise AssertionError(f"not done after {TRIES} tries: {told}")
    finally:
        target.server.no_faults()
    assert Warehouse.at(str(tmp_path)).size(report_path(work)) is not None
    # The last one's report may be there before its process has ended.
    wait_until(lambda: all(run.ended for run in target.ran(report)))
    runs = sorted(target.ran(report))
    assert follow_each_other(runs), (told, runs)
    # None is cancelled: that a vendor does not tell about a job for a while is no reason to give it up.
    assert sorted({run.state for run in runs} | {"FAILED"}) == ["FAILED", "SUCCESS"], (told, runs)
    assert [run.state for run in runs].count("SUCCESS") == 1, told
    assert Attempts(Warehouse.at(str(tmp_path)), work).current >= len(runs)


@pytest.mark.parametrize("name", ["emr_serverless", "emr", "databricks"])
def test_after_kill_9_of_the_worker_the_retry_reaches_the_job_that_runs(
    name: str, targets: dict[str, Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the job is there, which is recorded by then, or is not."""
    target = targets[name]
    target.connect(monkeypatch)
    planned = PlannedJobs("file:///x/head.json", digest_of([name, "killed"]), "backbone-1", ("featurize",))
    report = str(tmp_path / report_path(planned.work("featurize")))
    operator = target.operator(tmp_path, report, 0, "held_report")
    arguments = [name, target.place, str(tmp_path), report, planned.input_digest]
    places = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    worker = subprocess.Popen([sys.executable, "-m", "support.fault_targets", *arguments], env=places)
    wait_until(lambda: target.ran(report))
    worker.kill()
    worker.wait()
    (job,) = target.ran(report)
    assert not job.ended
    record_start = Attempts.record_start

    def release(attempts: Attempts, attempt: int, job: dict[str, str]) -> None:
        record_start(attempts, attempt, job)
        Path(f"{report}.released").touch()

    monkeypatch.setattr(Attempts, "record_start", release)
    operator.execute(TaskContext(planned))
    (job,) = target.ran(report)
    assert job.state == "SUCCESS"
    assert Attempts(Warehouse.at(str(tmp_path)), planned.work("featurize")).current == 1


@pytest.mark.parametrize(
    ("job", "fault", "words"),
    [
        ("fail", None, r": ValueError: no such fruit$"),
        ("nowhere", None, r"(cannot fetch 's3://jobs/scripts/nowhere\.py'.*|has no entry point nowhere)$"),
        ("sleep", "out_of_memory", r"(OutOfMemoryError|exit code 137|out of memory)"),
        ("overrun", None, r"(CANCELLED|TIMEDOUT): .*(executionTimeoutMinutes=5|ORCHARD_JOB_MINUTES|after 120 seconds)"),
    ],
)
@pytest.mark.parametrize("name", ["emr_serverless", "emr", "databricks"])
def test_a_job_that_fails_ends_its_task_with_its_own_last_error(
    name: str,
    job: str,
    fault: str | None,
    words: str,
    targets: dict[str, Target],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By an exception, a missing entry point, want of memory, and its time limit."""
    target = targets[name]
    target.connect(monkeypatch)
    planned = PlannedJobs("file:///x/head.json", digest_of([name, job, fault]), "backbone-1", ("featurize",))
    if fault:
        target.server.fault(fault, seconds=1)
    try:
        with pytest.raises(JobError, match=words) as raised:
            target.operator(tmp_path, str(tmp_path / "report"), 0, job).execute(TaskContext(planned))
        print(raised.value)
    finally:
        target.server.no_faults()
    assert Attempts(Warehouse.at(str(tmp_path)), planned.work("featurize")).current == 2
