"""The launchers against stand-ins that fail on schedule: never two jobs at once, none replayed, and it ends well."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from orchard.launchers.attempts import Attempts
from orchard.launchers.databricks import SubmitDatabricksRun
from orchard.launchers.emr import AddEmrStep
from orchard.launchers.emr_serverless import StartEmrServerlessJob
from orchard.launchers.request import JobRequest
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.layout import report_path
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse
from support import databricks_stand_in as databricks
from support import emr_stand_in as emr
from support.emr_stand_in import LOGS, ROLE, wait_until
from support.task_context import TaskContext

# The provider's own way to read a connection's form.
pytestmark = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
SCHEDULES = int(os.environ.get("SOAK_FAULT_SCHEDULES", "5"))
# Whether the jobs run on Spark, which takes most of a small job's time.
ON_SPARK = bool(os.environ.get("SOAK_ON_SPARK"))
TRIES = 8
ANSWERS = ("throttle", "error", "error_after", "delay", "drop_before", "drop_after")
SPARK = """
from pyspark.sql import SparkSession
assert SparkSession.builder.getOrCreate().range(1000).repartition(2).count() == 1000
"""
JOB = f"""{SPARK if ON_SPARK else ""}
import pathlib, sys, time
time.sleep(1)
report = pathlib.Path(sys.argv[1])
report.parent.mkdir(parents=True, exist_ok=True)
report.write_text("{{}}")
"""
JOBS = {
    "report": JOB,
    "slow_report": JOB.replace("time.sleep(1)", "time.sleep(6)"),
    "fail": "raise ValueError('no such fruit')",
    "sleep": "import time; print('asleep', flush=True); time.sleep(300)",
}
REQUEST = JobRequest("featurize", plan_task="plan_batch")


class Died(BaseException):
    """The task's process was killed."""


class Ran(NamedTuple):
    """A job as its vendor tells of it; it has no end while it runs."""

    began: Any
    ended: Any
    state: str


class Target(Protocol):
    """One vendor's stand-in, and the operator for it."""

    operations: tuple[str, ...]
    server: Any

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let Airflow's hooks reach the stand-in."""

    def operator(self, warehouse: Path, report: str, seed: int, job: str = "report") -> Any:
        """Return the operator for a job: of a second that writes the report, or one of those that `JOBS` names."""

    def ran(self, report: str) -> list[Ran]:
        """Return the jobs that were to write the report."""


class EmrServerless:
    operations = ("StartJobRun", "GetJobRun", "GetApplication")

    def __init__(self, server: emr.Server) -> None:
        self.server = server
        self.application = server.application(autoStopConfiguration={"enabled": False})

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = {"ENDPOINT_URL": self.server.address, "ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "thing"}
        for name, value in values.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws"}')

    def script(self, job: str) -> str:
        """Return the URI of a job's script; that of `nowhere` is not there."""
        return self.server.put(f"scripts/{job}.py", JOBS[job]) if job in JOBS else f"s3://jobs/scripts/{job}.py"

    def operator(self, warehouse: Path, report: str, seed: int, job: str = "report") -> Any:
        spark = {"entryPoint": self.script(job), "entryPointArguments": [report]}
        return StartEmrServerlessJob(
            request=REQUEST, warehouse=str(warehouse), task_id="featurize", application_id=self.application,
            execution_role_arn=ROLE, name="orchard-featurize", job_driver={"sparkSubmit": spark}, configuration_overrides=LOGS,
            config={"executionTimeoutMinutes": 5 if job == "sleep" else 120},
            waiter_delay=1, waiter_max_attempts=60, deferrable=False, region_name="us-east-1",
        )  # fmt: skip

    def ran(self, report: str) -> list[Ran]:
        client = self.server.emr
        pages = client.get_paginator("list_job_runs").paginate(applicationId=self.application)
        names = [run["id"] for page in pages for run in page["jobRuns"]]
        runs = [client.get_job_run(applicationId=self.application, jobRunId=name)["jobRun"] for name in names]
        ours = [run for run in runs if run["jobDriver"]["sparkSubmit"]["entryPointArguments"] == [report]]
        return [Ran(run["createdAt"], run.get("endedAt"), run["state"]) for run in ours]


class EmrSteps(EmrServerless):
    """By turns a job on a cluster of its own, and one on a cluster that is there."""

    operations = ("RunJobFlow", "ListClusters", "AddJobFlowSteps", "ListSteps", "DescribeStep")
    given = {"ReleaseLabel": "emr-7.11.0", "ServiceRole": "EMR_DefaultRole", "JobFlowRole": "EMR_EC2_DefaultRole"}

    def __init__(self, server: emr.Server) -> None:
        self.server = server
        instances = {"KeepJobFlowAliveWhenNoSteps": True}
        kept = self.given | {"Name": "kept", "Instances": instances, "LogUri": "s3://jobs/logs"}
        self.cluster = server.client("emr").run_job_flow(**kept)["JobFlowId"]

    def operator(self, warehouse: Path, report: str, seed: int, job: str = "report") -> Any:
        words = ["spark-submit", "--deploy-mode", "client", self.script(job), report]
        jar = {"Jar": "command-runner.jar", "Args": words}
        own = self.given | {"Instances": {"KeepJobFlowAliveWhenNoSteps": False}, "LogUri": "s3://jobs/logs"}
        where, on_failure = ((own, ""), "TERMINATE_CLUSTER") if seed % 2 else ((None, self.cluster), "CONTINUE")
        return AddEmrStep(
            request=REQUEST, warehouse=str(warehouse), task_id="featurize", new_cluster=where[0], job_flow_id=where[1],
            logs_uri="s3://jobs/logs", steps=[{"Name": "x", "ActionOnFailure": on_failure, "HadoopJarStep": jar}],
            waiter_delay=1, waiter_max_attempts=5 if job == "sleep" else 60, deferrable=False, region_name="us-east-1",
        )  # fmt: skip

    def ran(self, report: str) -> list[Ran]:
        client = self.server.client("emr")
        names = [cluster["Id"] for page in client.get_paginator("list_clusters").paginate() for cluster in page["Clusters"]]
        pages = [page for name in names for page in client.get_paginator("list_steps").paginate(ClusterId=name)]
        steps = [step for page in pages for step in page["Steps"]]
        ours = [step["Status"] for step in steps if step["Config"]["Args"][-1] == report]
        states = {"COMPLETED": "SUCCESS"}
        times = [status["Timeline"] for status in ours]
        return [
            Ran(time["CreationDateTime"], time.get("EndDateTime"), states.get(status["State"], status["State"]))
            for time, status in zip(times, ours, strict=True)
        ]


class Databricks:
    operations = ("submit", "get", "get-output")

    def __init__(self, server: databricks.Server) -> None:
        self.server = server

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connection = {
            "conn_type": "databricks", "host": "http://127.0.0.1", "schema": "http", "port": int(self.server.port),
            "password": databricks.TOKEN,
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))

    def operator(self, warehouse: Path, report: str, seed: int, job: str = "report") -> Any:
        request = databricks.request_of("report_of_spark" if ON_SPARK and job == "report" else job, report)
        return SubmitDatabricksRun(
            request=REQUEST, warehouse=str(warehouse), task_id="featurize", tasks=request["tasks"],
            environments=request["environments"], polling_period_seconds=1, databricks_retry_delay=1, deferrable=False,
            durable=False, timeout_seconds=120 if job == "sleep" else None,
        )  # fmt: skip

    def ran(self, report: str) -> list[Ran]:
        runs = self.server.client.jobs.list_runs(expand_tasks=True)
        ours = [run.as_dict() for run in runs if run.tasks and run.tasks[0].python_wheel_task.parameters == [report]]  # type: ignore[union-attr]
        return [Ran(run["start_time"], run.get("end_time"), run["state"].get("result_state", "")) for run in ours]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    first, second = tmp_path_factory.mktemp("emr"), tmp_path_factory.mktemp("databricks")
    options = () if ON_SPARK else ("--without-spark",)
    with emr.serving(first) as aws, databricks.serving(second, second / "objects", *options) as workspace:
        yield {"emr_serverless": EmrServerless(aws), "emr": EmrSteps(aws), "databricks": Databricks(workspace)}


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
    note_start = Attempts.note_start
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
                    note_start(attempts, attempt, job)
                if when != "no":
                    told.append((f"killed {when} the start was recorded", str(job)))
                    raise Died

            monkeypatch.setattr(Attempts, "note_start", die)
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
    wait_until(lambda: all(run.ended for run in target.ran(report)), 60)
    runs = sorted(target.ran(report))
    assert all(first.ended <= second.began for first, second in zip(runs, runs[1:], strict=False)), (told, runs)
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
    planned = PlannedJobs("file:///x/head.json", f"{name} killed", "backbone-1", ("featurize",))
    report = str(tmp_path / report_path(planned.work("featurize")))
    operator = target.operator(tmp_path, report, 0, "slow_report")
    command = "import sys, test_fault_schedules as me; me.execute_as_worker(*sys.argv[1:])"
    where = target.cluster if isinstance(target, EmrSteps) else getattr(target, "application", "")
    arguments = [name, where, str(tmp_path), report, planned.input_digest]
    places = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    worker = subprocess.Popen([sys.executable, "-c", command, *arguments], env=places)
    wait_until(lambda: target.ran(report), 60)
    worker.kill()
    worker.wait()
    (job,) = target.ran(report)
    assert not job.ended
    operator.execute(TaskContext(planned))
    (job,) = target.ran(report)
    assert job.state == "SUCCESS"
    assert Attempts(Warehouse.at(str(tmp_path)), planned.work("featurize")).current == 1


def execute_as_worker(name: str, where: str, warehouse: str, report: str, digest: str) -> None:
    """Execute the operator in this process, as a worker does; `where` is the cluster or the application."""
    target = object.__new__({"emr_serverless": EmrServerless, "emr": EmrSteps, "databricks": Databricks}[name])
    target.cluster = target.application = where
    target.script = lambda job: f"s3://jobs/scripts/{job}.py"
    planned = PlannedJobs("file:///x/head.json", digest, "backbone-1", ("featurize",))
    target.operator(Path(warehouse), report, 0, "slow_report").execute(TaskContext(planned))


@pytest.mark.parametrize(
    ("job", "fault", "words"),
    [
        ("fail", None, r": ValueError: no such fruit$"),
        ("nowhere", None, r"(cannot fetch 's3://jobs/scripts/nowhere\.py'.*|has no entry point nowhere)$"),
        ("sleep", "out_of_memory", r"(OutOfMemoryError|exit code 137|out of memory)"),
        ("sleep", None, r"(CANCELLED|TIMEDOUT): .*(executionTimeoutMinutes=5|ORCHARD_JOB_MINUTES|after 120 seconds)"),
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
    planned = PlannedJobs("file:///x/head.json", f"{name}{job}{fault}", "backbone-1", ("featurize",))
    if fault:
        target.server.fault(fault, seconds=1)
    try:
        with pytest.raises(JobError, match=words) as raised:
            target.operator(tmp_path, str(tmp_path / "report"), 0, job).execute(TaskContext(planned))
        print(raised.value)
    finally:
        target.server.no_faults()
    assert Attempts(Warehouse.at(str(tmp_path)), planned.work("featurize")).current == 2
