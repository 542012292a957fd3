"""The launcher against a stand-in that fails on schedule: never two jobs at once, none replayed, and it ends well."""

import os
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from emr_stand_in import ROLE, Server, serving, wait_until
from orchard.attempts import Attempts
from orchard.launchers import JobRequest
from orchard.launchers.emr_serverless import StartEmrServerlessJob
from orchard.launchers.request import Planned
from orchard_jobs.contract.layout import report_path
from orchard_jobs.storage import Warehouse

SCHEDULES = int(os.environ.get("SOAK_FAULT_SCHEDULES", "5"))
TRIES = 8
ANSWERS = ("throttle", "error", "error_after", "delay", "drop_before", "drop_after")
OPERATIONS = ("StartJobRun", "GetJobRun", "GetApplication")
JOB = """
import pathlib, sys, time
time.sleep(1)
report = pathlib.Path(sys.argv[1])
report.parent.mkdir(parents=True, exist_ok=True)
report.write_text("{}")
"""


class Died(BaseException):
    """The task's process was killed."""


class Context(dict[str, Any]):
    """A task context whose XCom holds a plan."""

    def __init__(self, planned: Planned) -> None:
        super().__init__(ti=self)
        self.planned = planned

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return asdict(self.planned)

    def xcom_push(self, key: str, value: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("emr")) as server:
        yield server


@pytest.fixture(scope="module")
def application(server: Server) -> str:
    return server.application(autoStopConfiguration={"enabled": False})


def operator_of(warehouse: Path, planned: Planned, server: Server, application: str) -> StartEmrServerlessJob:
    report = warehouse / report_path(planned.work("featurize"))
    spark = {"entryPoint": server.put("scripts/job.py", JOB), "entryPointArguments": [str(report)]}
    return StartEmrServerlessJob(
        request=JobRequest("featurize", plan_task="plan_batch"), warehouse=str(warehouse), task_id="featurize",
        application_id=application, execution_role_arn=ROLE, name="orchard-featurize", job_driver={"sparkSubmit": spark},
        waiter_delay=1, waiter_max_attempts=60, deferrable=False, region_name="us-east-1",
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_fails_there_are_never_two_jobs(
    seed: int, server: Server, application: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    for name, value in (("ENDPOINT_URL", server.address), ("ACCESS_KEY_ID", "any"), ("SECRET_ACCESS_KEY", "thing")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws"}')
    planned = Planned("file:///x/head.json", f"{seed:064x}", "backbone-1", ("featurize",))
    told = []
    note_start = Attempts.note_start
    try:
        for number in range(TRIES):
            server.no_faults()
            # The last tries are undisturbed, so that all schedules can end.
            death = draw.choice(("before", "after", "no", "no")) if number < TRIES // 2 else "no"
            for _ in range(draw.choice((0, 1, 2)) if number < TRIES // 2 else 0):
                kind = draw.choice((*ANSWERS, "kill_job", "out_of_memory"))
                told.append((kind, operation := draw.choice(OPERATIONS)))
                server.fault(kind, operation=operation, times=draw.choice((1, 3)), seconds=draw.choice((0, 0.5)))

            def die(attempts: Attempts, attempt: int, job: dict[str, str], when: str = death) -> None:
                """Record the start, unless the process is killed just before, or just after."""
                if when != "before":
                    note_start(attempts, attempt, job)
                if when != "no":
                    told.append((f"killed {when} the start was recorded", job["job_id"]))
                    raise Died

            monkeypatch.setattr(Attempts, "note_start", die)
            try:
                operator_of(tmp_path, planned, server, application).execute(Context(planned))
            except AirflowSkipException:
                break
            except (Died, Exception) as error:
                told.append((type(error).__name__, str(error)[:80]))
        else:
            raise AssertionError(f"not done after {TRIES} tries: {told}")
    finally:
        server.no_faults()
    work = planned.work("featurize")
    assert Warehouse.at(str(tmp_path)).size(report_path(work)) is not None
    # The last one's report may be there before its process has ended.
    wait_until(lambda: all("endedAt" in run for run in _runs(server, application, report_path(work))), 60)
    runs = list(_runs(server, application, report_path(work)))
    spans = sorted((run["createdAt"], run["endedAt"]) for run in runs)
    assert all(ended <= created for (_, ended), (created, _) in zip(spans, spans[1:], strict=False)), (told, spans)
    assert [run["state"] for run in runs].count("SUCCESS") == 1, told
    assert Attempts(Warehouse.at(str(tmp_path)), work).current >= len(runs)


def _runs(server: Server, application: str, report: str) -> Iterator[dict[str, Any]]:
    for page in server.emr.get_paginator("list_job_runs").paginate(applicationId=application):
        for shown in page["jobRuns"]:
            run = server.emr.get_job_run(applicationId=application, jobRunId=shown["id"])["jobRun"]
            if run["jobDriver"]["sparkSubmit"]["entryPointArguments"][0].endswith(report):
                yield run
