"""The three vendors' stand-ins and the operators for them, for tests in which jobs and requests fail on schedule.

As a program it executes one operator, as a worker of Airflow does.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from orchard.launchers.databricks import SubmitDatabricksRun
from orchard.launchers.emr import AddEmrStep
from orchard.launchers.emr_serverless import StartEmrServerlessJob
from orchard.launchers.request import JobRequest
from orchard.tables.reports import PlannedJobs
from orchard_sandbox.s3.landing import KEY

from support import databricks_stand_in as databricks
from support import emr_stand_in as emr
from support.task_context import TaskContext

Operator = StartEmrServerlessJob | AddEmrStep | SubmitDatabricksRun
# Whether the jobs run on Spark, which takes most of a small job's time.
ON_SPARK = bool(os.environ.get("SOAK_ON_SPARK"))
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
UNTIL_RELEASED = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1] + ".released").exists():
    time.sleep(0.1)
"""
SLEEP = "import time; print('asleep', flush=True); time.sleep(300)"
# The wheel of the Databricks stand-in has functions of the same names. Neither has `nowhere`. `overrun` gets little time.
JOBS = {
    "report": JOB,
    "held_report": UNTIL_RELEASED + JOB,
    "fail": "raise ValueError('no such fruit')",
    "sleep": SLEEP,
    "overrun": SLEEP,
}
# A cluster that the step does not share with others.
CLUSTER = {"ReleaseLabel": "emr-7.11.0", "ServiceRole": "EMR_DefaultRole", "JobFlowRole": "EMR_EC2_DefaultRole"}


class Ran(NamedTuple):
    """A job as its vendor tells of it: seconds since 1970, no end while it runs, and the state."""

    began: float
    ended: float | None
    state: str


class FaultyServer(Protocol):
    """A stand-in that causes faults on request."""

    def fault(self, kind: str, **given: Any) -> None:
        """Cause a fault of this kind from now on."""

    def no_faults(self) -> None:
        """Cause none any more."""


@dataclass(frozen=True)
class Target:
    """One vendor's stand-in: the operations that can fail, and the jobs that were to write a report.

    Its place is the application or the cluster that the jobs run on.
    """

    name: str
    server: FaultyServer
    place: str
    operations: tuple[str, ...]
    environment: dict[str, str]
    ran: Callable[[str], list[Ran]]

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let Airflow's hooks reach the stand-in."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def operator(self, warehouse: Path, report: str, seed: int, job: str = "report") -> Operator:
        """Return the operator for a job: of a second that writes the report, or another of `JOBS`."""
        return OPERATORS[self.name](self.place, warehouse, report, seed, job)


def put_scripts(server: emr.Server) -> None:
    """Put the script of each job where the operators of EMR look for it."""
    for job, script in JOBS.items():
        server.put(f"scripts/{job}.py", script)


def environment_of(server: emr.Server) -> dict[str, str]:
    """Return the variables that let Airflow reach the stand-in of AWS."""
    values = {"ENDPOINT_URL": server.address, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": "thing"}
    return {f"AWS_{name}": value for name, value in values.items()} | {"AIRFLOW_CONN_AWS_DEFAULT": '{"conn_type": "aws"}'}


def emr_serverless(server: emr.Server) -> Target:
    """Return the target of job runs in an application that stays."""
    application = server.application()

    def ran(report: str) -> list[Ran]:
        pages = server.emr.get_paginator("list_job_runs").paginate(applicationId=application)
        names = [run["id"] for page in pages for run in page["jobRuns"]]
        runs = [server.emr.get_job_run(applicationId=application, jobRunId=name)["jobRun"] for name in names]
        ours = [run for run in runs if run["jobDriver"]["sparkSubmit"]["entryPointArguments"] == [report]]
        ends = [run["endedAt"].timestamp() if "endedAt" in run else None for run in ours]
        return [Ran(run["createdAt"].timestamp(), end, run["state"]) for run, end in zip(ours, ends, strict=True)]

    operations = ("StartJobRun", "GetJobRun", "GetApplication")
    return Target("emr_serverless", server, application, operations, environment_of(server), ran)


def emr_steps(server: emr.Server) -> Target:
    """Return the target of steps, by turns on a cluster of their own and on one that is there."""
    client = server.client("emr")
    kept = CLUSTER | {"Name": "kept", "Instances": {"KeepJobFlowAliveWhenNoSteps": True}, "LogUri": "s3://jobs/logs"}
    cluster: str = client.run_job_flow(**kept)["JobFlowId"]

    def ran(report: str) -> list[Ran]:
        names = [cluster["Id"] for page in client.get_paginator("list_clusters").paginate() for cluster in page["Clusters"]]
        pages = [page for name in names for page in client.get_paginator("list_steps").paginate(ClusterId=name)]
        steps = [step for page in pages for step in page["Steps"]]
        return [_ran_step(step["Status"]) for step in steps if step["Config"]["Args"][-1] == report]

    operations = ("RunJobFlow", "ListClusters", "AddJobFlowSteps", "ListSteps", "DescribeStep")
    return Target("emr", server, cluster, operations, environment_of(server), ran)


def _ran_step(status: dict[str, Any]) -> Ran:
    times = status["Timeline"]
    ended = times["EndDateTime"].timestamp() if "EndDateTime" in times else None
    state = "SUCCESS" if status["State"] == "COMPLETED" else status["State"]
    return Ran(times["CreationDateTime"].timestamp(), ended, state)


def databricks_runs(server: databricks.Server) -> Target:
    """Return the target of runs on serverless compute."""
    form = {"host": "http://127.0.0.1", "schema": "http", "port": int(server.port), "password": databricks.TOKEN}
    environment = {"AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps({"conn_type": "databricks"} | form)}

    def ran(report: str) -> list[Ran]:
        runs = [json.loads(path.read_text()) for path in (server.folder / "runs").glob("*/record.json")]
        ours = [run for run in runs if run["request"]["tasks"][0]["python_wheel_task"]["parameters"] == [report]]
        return [_ran_run(run) for run in ours]

    return Target("databricks", server, "", ("submit", "get", "get-output"), environment, ran)


def _ran_run(run: dict[str, Any]) -> Ran:
    ended = run["end_time"] / 1000 if run.get("end_time") else None
    return Ran(run["start_time"] / 1000, ended, run["result_state"] or "")


def _fields(warehouse: Path) -> dict[str, Any]:
    request = JobRequest("featurize", plan_task="plan_batch")
    return {"request": request, "warehouse": str(warehouse), "task_id": "featurize", "deferrable": False}


def _emr_serverless_operator(application: str, warehouse: Path, report: str, seed: int, job: str) -> Operator:
    spark = {"entryPoint": f"s3://jobs/scripts/{job}.py", "entryPointArguments": [report]}
    return StartEmrServerlessJob(
        **_fields(warehouse),
        application_id=application,
        execution_role_arn=emr.ROLE,
        name="orchard-featurize",
        job_driver={"sparkSubmit": spark},
        configuration_overrides=emr.LOGS,
        config={"executionTimeoutMinutes": 5 if job == "overrun" else 120},
        waiter_delay=1,
        waiter_max_attempts=60,
        region_name="us-east-1",
    )


def _emr_operator(cluster: str, warehouse: Path, report: str, seed: int, job: str) -> Operator:
    words = ["spark-submit", "--deploy-mode", "client", f"s3://jobs/scripts/{job}.py", report]
    own = CLUSTER | {"Instances": {"KeepJobFlowAliveWhenNoSteps": False}, "LogUri": "s3://jobs/logs"}
    is_own = bool(seed % 2)
    step = {"Name": "x", "ActionOnFailure": "TERMINATE_CLUSTER" if is_own else "CONTINUE"}
    return AddEmrStep(
        **_fields(warehouse),
        new_cluster=own if is_own else None,
        job_flow_id="" if is_own else cluster,
        logs_uri="s3://jobs/logs",
        steps=[step | {"HadoopJarStep": {"Jar": "command-runner.jar", "Args": words}}],
        waiter_delay=1,
        waiter_max_attempts=5 if job == "overrun" else 60,
        region_name="us-east-1",
    )


def _databricks_operator(place: str, warehouse: Path, report: str, seed: int, job: str) -> Operator:
    request = databricks.request_of("report_of_spark" if ON_SPARK and job == "report" else job, report)
    return SubmitDatabricksRun(
        **_fields(warehouse),
        tasks=request["tasks"],
        environments=request["environments"],
        polling_period_seconds=1,
        databricks_retry_delay=1,
        durable=False,
        timeout_seconds=120 if job == "overrun" else None,
    )


OPERATORS: dict[str, Callable[[str, Path, str, int, str], Operator]] = {
    "emr_serverless": _emr_serverless_operator,
    "emr": _emr_operator,
    "databricks": _databricks_operator,
}


def execute_as_worker(name: str, place: str, warehouse: str, report: str, digest: str) -> None:
    """Execute the operator of a job that is held until its report's `.released` is there, in this process."""
    planned = PlannedJobs("file:///x/head.json", digest, "backbone-1", ("featurize",))
    OPERATORS[name](place, Path(warehouse), report, 0, "held_report").execute(TaskContext(planned))


if __name__ == "__main__":
    execute_as_worker(*sys.argv[1:])
