"""EMR Serverless in the stand-in, through boto3 against a real server: what it says of a job is what became of its processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError, ConnectionClosedError, WaiterError
from support.emr_stand_in import JOBS, ROLE, Job, Server, packed_environment, serving, wait_until
from support.repository import ROOT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("emr"), is_quick=True) as server:
        yield server


@pytest.fixture(scope="module")
def application(server: Server) -> str:
    return server.application()


@pytest.fixture(autouse=True)
def _no_faults_left(server: Server) -> Iterator[None]:
    yield
    left = server.faults()
    requests.delete(f"{server.address}/_orchard/faults", timeout=10)
    assert left == []


SLEEPER = """
    import subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    print("started")
    time.sleep(300)
"""
# The real spark-submit runs what names it.
ON_SPARK = "    # pyspark"


def test_a_job_runs_with_its_files_arguments_and_environment_alone(server: Server, application: str, tmp_path: Path) -> None:
    archive = tmp_path / "given.tar.gz"
    (tmp_path / "words.txt").write_text("unpacked")
    subprocess.run(["tar", "czf", str(archive), "-C", str(tmp_path), "words.txt"], check=True)
    library = tmp_path / "library.zip"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('fruit.py', 'NAME = 1')",
            library,
        ],
        check=True,
    )
    parameters = (
        f"--conf spark.submit.pyFiles={server.put('library.zip', library.read_bytes())} "
        f"--conf spark.archives={server.put('given.tar.gz', archive.read_bytes())}#given "
        "--conf spark.executor.cores=4 --conf spark.executor.memory=8g --conf spark.driver.cores=2 "
        "--conf spark.emr-serverless.driverEnv.ORCHARD_GIVEN=yes --conf spark.executorEnv.OTHER='a b' "
        "--conf spark.emr-serverless.driverEnv.PYSPARK_PYTHON=/opt/image/bin/python"
    )
    script = """
        import json, os, sys, time
        import fruit, pyspark
        print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ), "python": sys.executable,
                          "archive": open("given/words.txt").read(), "group": os.getpgrp()}))
        print("to the other stream", file=sys.stderr)  # Spark puts it on stdout, too
        time.sleep(1)
    """
    spark = {"sparkSubmitParameters": parameters}
    job = Job(server, application, script, ["a b", "--c=d"], spark=spark, name="a job", tags={"team": "fruit"})
    run = job.wait()
    assert (run["state"], job.states) == ("SUCCESS", ["SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "SUCCESS"])
    first, second = job.log("stdout").splitlines()
    told = json.loads(first)
    assert told["arguments"] == ["a b", "--c=d"]
    assert told["archive"] == "unpacked"
    assert told["python"] == str(JOBS / "python")
    assert told["group"] != os.getpgid(server.process.pid)
    environment = told["environment"]
    assert {name: environment[name] for name in ("ORCHARD_GIVEN", "OTHER", "AWS_ENDPOINT_URL")} == {
        "ORCHARD_GIVEN": "yes",
        "OTHER": "a b",
        "AWS_ENDPOINT_URL": server.address,
    }
    assert "leaked" not in environment.values()
    assert second == "to the other stream"
    assert "to the other stream" not in job.log("stderr")
    assert run["createdAt"] < run["startedAt"] < run["endedAt"] == run["updatedAt"]
    assert (run["endedAt"] - run["startedAt"]).total_seconds() >= 1
    assert (run["name"], run["tags"]) == ("a job", {"team": "fruit"})
    page = server.emr.get_dashboard_for_job_run(**job.keys)["url"]
    assert "to the other stream" in requests.get(page, timeout=10).text
    assert '"--c=d"' in requests.get(page.replace("/?", "/logs/SPARK_DRIVER/stdout.gz?"), timeout=10).text.replace("&quot;", '"')


def test_spark_runs_python_workers(server: Server, application: str) -> None:
    script = """
        from pyspark.sql import SparkSession
        spark = SparkSession.builder.getOrCreate()
        rows = spark.range(10).mapInArrow(lambda batches: batches, "id long").count()
        print("counted", rows, spark.sparkContext.master)
    """
    job = Job(server, application, script)
    assert job.wait()["state"] == "SUCCESS"
    assert job.log("stdout").strip() == "counted 10 local[2,4]"


def test_an_environments_archive_runs_driver_and_workers(server: Server, application: str, tmp_path: Path) -> None:
    """With the parameters that the launcher sends; as in a packed environment the interpreter is a link to the system's."""
    golden = json.loads((ROOT / "tests" / "golden" / "emr_serverless_start_job_run.json").read_text())
    parameters = golden["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    archive = packed_environment(tmp_path)
    server.s3.create_bucket(Bucket="code")
    for uri in re.findall(r"s3://code/([^ #]+)", parameters):
        server.s3.put_object(Bucket="code", Key=uri, Body=archive if "environment" in uri else b"PK\x05\x06" + b"\0" * 18)
    script = """
        import sys
        import pyarrow
        from pyspark.sql import SparkSession
        def where(batches):
            yield pyarrow.RecordBatch.from_pydict({"prefix": [sys.prefix]})
        spark = SparkSession.builder.getOrCreate()
        print(sys.prefix, spark.range(1).mapInArrow(where, "prefix string").collect()[0].prefix)
    """
    job = Job(server, application, script, spark={"sparkSubmitParameters": parameters})
    assert job.wait()["state"] == "SUCCESS", job.log("stdout") + job.log("stderr")
    driver, worker = job.log("stdout").split()
    assert driver == worker
    assert driver.endswith("/run/environment")


def test_a_token_stands_for_one_job_run_for_ever(server: Server, application: str) -> None:
    job = Job(server, application, "print('ran')")
    assert server.emr.start_job_run(**job.request)["jobRunId"] == job.name
    assert job.wait()["state"] == "SUCCESS"
    assert server.emr.start_job_run(**job.request)["jobRunId"] == job.name
    assert job.log("stdout") == "ran\n"
    with pytest.raises(ClientError, match="ConflictException"):
        server.emr.start_job_run(**{**job.request, "name": "another"})


def test_requests_at_once_with_one_token_start_one_job_run(server: Server, application: str) -> None:
    job = Job(server, application, "print('ran')")
    request = {**job.request, "clientToken": uuid.uuid4().hex}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.emr.start_job_run(**request)["jobRunId"], range(8)))
    assert len(set(answers)) == 1
    assert job.wait()["state"] == "SUCCESS"


def test_a_cancelled_job_leaves_no_process(server: Server, application: str) -> None:
    job = Job(server, application, ON_SPARK + SLEEPER)
    job.wait("RUNNING")
    wait_until(lambda: "started" in job.written())
    assert len(job.processes()) >= 3
    job.cancel()
    run = job.wait()
    assert job.processes() == []
    assert job.states[-3:] == ["RUNNING", "CANCELLING", "CANCELLED"]
    assert run["stateDetails"] == "The job run was cancelled on request."
    with pytest.raises(ClientError, match="ValidationException"):
        job.cancel()


def test_a_job_that_ignores_sigterm_is_killed(server: Server, application: str) -> None:
    script = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ignoring", flush=True)
        time.sleep(300)
    """
    job = Job(server, application, script)
    job.wait("RUNNING")
    wait_until(lambda: "ignoring" in job.written())
    job.cancel()
    assert job.wait()["state"] == "CANCELLED"
    assert job.processes() == []


def test_a_job_run_that_waits_is_cancelled_before_it_runs(server: Server, application: str) -> None:
    with server.holding_jobs():
        job = Job(server, application, "print('ran')")
        job.cancel()
        assert job.wait()["state"] == "CANCELLED"
    assert "RUNNING" not in job.states


def test_a_job_that_takes_too_long_is_cancelled(server: Server, application: str) -> None:
    job = Job(server, application, SLEEPER, executionTimeoutMinutes=5)
    run = job.wait()
    assert job.states[-3:] == ["RUNNING", "CANCELLING", "CANCELLED"]
    assert "executionTimeoutMinutes=5" in run["stateDetails"]
    assert job.processes() == []
    with pytest.raises(ClientError, match="at least 5 minutes"):
        Job(server, application, SLEEPER, executionTimeoutMinutes=4)


def test_a_failed_job_gives_its_own_reason(server: Server, application: str) -> None:
    ends = [
        ("raise ValueError('no such fruit')", 1, "ValueError: no such fruit"),
        ("import sys; sys.exit('not today')", 1, "not today"),
        ("import os; os._exit(7)", 7, "the driver wrote no error"),
    ]
    jobs = [Job(server, application, script) for script, _, _ in ends]
    told = "Job failed, please check complete logs in configured logging destination."
    for job, (_, status, reason) in zip(jobs, ends, strict=True):
        run = job.wait()
        assert run["state"] == "FAILED"
        assert run["stateDetails"] == f"{told} ExitCode: {status}. Last few exceptions: {reason}"
    assert "Traceback" in jobs[0].log("stdout")


def test_a_missing_entry_point_fails_the_job(server: Server, application: str) -> None:
    job = Job(server, application, "", spark={"entryPoint": "s3://jobs/none.py"})
    run = job.wait()
    assert (run["state"], "RUNNING" in job.states) == ("FAILED", False)
    assert "s3://jobs/none.py" in run["stateDetails"]
    assert "s3://jobs/none.py" in job.log("stderr")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("kill_job", "the driver was ended by signal 9"), ("out_of_memory", "java.lang.OutOfMemoryError: Java heap space")],
)
def test_a_killed_job_fails_with_137_and_leaves_no_process(server: Server, application: str, kind: str, reason: str) -> None:
    server.fault(kind, seconds=1.5)
    job = Job(server, application, ON_SPARK + SLEEPER)
    run = job.wait()
    assert (run["state"], job.processes()) == ("FAILED", [])
    assert f"ExitCode: 137. Last few exceptions: {reason}" in run["stateDetails"]


def test_no_job_succeeds_while_execution_is_switched_off(server: Server, application: str, tmp_path: Path) -> None:
    server.fault("no_execution", times=0)
    jobs = [Job(server, application, f"open({str(tmp_path / 'ran')!r}, 'w')") for _ in range(2)]
    for job in jobs:
        run = job.wait()
        assert run["state"] == "FAILED"
        assert "execution is switched off" in run["stateDetails"]
        assert "startedAt" not in run
    assert jobs[0].states[-2:] == ["SCHEDULED", "FAILED"]
    assert not (tmp_path / "ran").exists()
    requests.delete(f"{server.address}/_orchard/faults", timeout=10)
    again = Job(server, application, f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert again.wait()["state"] == "SUCCESS"
    assert (tmp_path / "ran").exists()


def test_answers_fail_as_often_as_asked(server: Server, application: str) -> None:
    server.fault("throttle", operation="GetApplication", times=2, seconds=3)
    for _ in range(2):
        with pytest.raises(ClientError, match="ThrottlingException") as caught:
            server.client("emr-serverless").get_application(applicationId=application)
        assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "3"
    server.fault("error", operation="GetApplication")
    with pytest.raises(ClientError, match="InternalServerException"):
        server.client("emr-serverless").get_application(applicationId=application)
    server.fault("delay", operation="GetApplication", seconds=0.5)
    begin = time.monotonic()
    server.emr.get_application(applicationId=application)
    assert time.monotonic() - begin >= 0.5
    server.fault("throttle", operation="GetApplication", times=2)
    patient = boto3.client(
        "emr-serverless",
        endpoint_url=server.address,
        aws_access_key_id="orchard",
        aws_secret_access_key="thing",
        region_name="us-east-1",
    )
    assert patient.get_application(applicationId=application)["ResponseMetadata"]["RetryAttempts"] == 2


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "error_after"])
def test_a_call_whose_answer_is_lost_takes_effect_once(server: Server, kind: str) -> None:
    application = server.application()
    server.emr.start_application(applicationId=application)
    wait_until(lambda: server.emr.get_application(applicationId=application)["application"]["state"] == "STARTED")
    request = {
        "applicationId": application,
        "clientToken": kind,
        "executionRoleArn": ROLE,
        "jobDriver": {"sparkSubmit": {"entryPoint": server.put("once.py", "print('ran')")}},
    }
    server.fault(kind, operation="StartJobRun")
    with pytest.raises((ConnectionClosedError, ClientError)):
        server.client("emr-serverless").start_job_run(**request)
    runs = server.emr.list_job_runs(applicationId=application)["jobRuns"]
    assert len(runs) == (0 if kind == "drop_before" else 1)
    name = server.emr.start_job_run(**request)["jobRunId"]
    assert [run["id"] for run in server.emr.list_job_runs(applicationId=application)["jobRuns"]] == [name]


def test_a_wrong_fault_is_refused(server: Server) -> None:
    for wrong in ({"kind": "nothing"}, {"kind": "error", "time": 2}, {"kind": "error", "times": -1}, ["error"]):
        answer = requests.post(f"{server.address}/_orchard/faults", json=wrong, timeout=10)
        assert answer.status_code == 400
        assert answer.json()["message"]


def test_an_application_starts_with_its_first_job(server: Server) -> None:
    name = server.application()
    assert Job(server, name, "print('ran')").wait()["state"] == "SUCCESS"
    assert server.states(name) == ["CREATED", "STARTED"]
    assert [one["state"] for one in server.emr.list_applications()["applications"] if one["id"] == name] == ["STARTED"]


def test_job_runs_are_listed_page_by_page_the_newest_first(server: Server) -> None:
    application = server.application()
    server.fault("no_execution", times=3)
    runs = [Job(server, application, "") for _ in range(3)]
    for job in runs:
        job.wait()
    pages = server.emr.get_paginator("list_job_runs").paginate(applicationId=application, PaginationConfig={"PageSize": 2})
    assert [run["id"] for page in pages for run in page["jobRuns"]] == [job.name for job in reversed(runs)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobDriver": {"hive": {"query": "s3://jobs/q.sql"}}}, "jobDriver hive"),
        ({"jobDriver": {"sparkSubmit": {"entryPoint": "s3://jobs/a.jar"}}}, "not a Python script"),
        ({"jobDriver": {"sparkSubmit": {"entryPoint": "/opt/a.py"}}}, "not an object on S3"),
        ({"spark": "--master yarn"}, "--master"),
        ({"spark": "--conf spark.master=yarn"}, "spark.master"),
        ({"spark": "--conf spark.emr-serverless.unheard=1"}, "spark.emr-serverless.unheard"),
        ({"spark": "--conf spark.submit.pyFiles=local.zip"}, "not an object on S3"),
        ({"mode": "STREAMING"}, "mode is not known"),
        ({"executionIamPolicy": {"policy": "{}"}}, "executionIamPolicy"),
        ({"retryPolicy": {"maxAttempts": 2}}, "retryPolicy is not known"),
        ({"configurationOverrides": {"applicationConfiguration": [{"classification": "hive-site"}]}}, "applicationConfiguration"),
        (
            {"configurationOverrides": {"monitoringConfiguration": {"cloudWatchLoggingConfiguration": {"enabled": True}}}},
            "cloudWatchLoggingConfiguration",
        ),
    ],
)
def test_what_is_not_known_is_refused(server: Server, application: str, given: dict[str, Any], message: str) -> None:
    spark = {"entryPoint": "s3://jobs/a.py", **({"sparkSubmitParameters": given["spark"]} if "spark" in given else {})}
    rest = {name: value for name, value in given.items() if name != "spark"}
    with pytest.raises(ClientError, match="ValidationException") as caught:
        server.emr.start_job_run(
            **{"applicationId": application, "executionRoleArn": ROLE, "jobDriver": {"sparkSubmit": spark}, **rest}
        )
    assert message in str(caught.value)


def test_operations_and_names_that_are_not_there_are_refused(server: Server, application: str) -> None:
    with pytest.raises(ClientError, match="GetResourceDashboard is not known here"):
        server.emr.get_resource_dashboard(applicationId=application, resourceId="a", resourceType="SESSION")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        server.emr.get_job_run(applicationId=application, jobRunId="none")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        server.emr.get_application(applicationId="none")
    with pytest.raises(ClientError, match="only SPARK"):
        server.application(type="HIVE")


def test_the_waiters_of_airflow_end(server: Server, application: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.amazon.aws.hooks.emr import EmrServerlessHook

    connection = {"conn_type": "aws", "login": "orchard", "password": "thing", "extra": {"endpoint_url": server.address}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    hook = EmrServerlessHook(region_name="us-east-1")
    quickly = {"Delay": 0.1, "MaxAttempts": 200}
    created = server.application()
    hook.get_waiter("serverless_app_created").wait(applicationId=created, WaiterConfig=quickly)
    client: Any = hook.conn
    client.start_application(applicationId=created)
    hook.get_waiter("serverless_app_started").wait(applicationId=created, WaiterConfig=quickly)
    good, bad = Job(server, application, "print('ran')"), Job(server, application, "raise KeyError('pear')")
    completed = hook.get_waiter("serverless_job_completed")
    completed.wait(**good.keys, WaiterConfig=quickly)
    with pytest.raises(WaiterError):
        completed.wait(**bad.keys, WaiterConfig=quickly)


def test_the_wire_is_motos_and_one_version_is_pinned() -> None:
    import moto
    from moto.emrserverless import urls
    from moto.emrserverless.responses import EMRServerlessResponse

    application = "{0}/applications/(?P<applicationId>[^/]+)"
    pinned = (ROOT / "requirements" / "dev.in").read_text()
    assert f"moto[glue,s3]=={moto.__version__}" in pinned
    assert set(urls.url_paths) == {
        "{0}/applications$",
        *(f"{application}{rest}$" for rest in ("", "/start", "/stop", "/jobruns", "/jobruns/(?P<jobRunId>[^/]+)")),
    }
    handlers: list[Any] = list(urls.url_paths.values())
    assert {handler.__self__ for handler in handlers} == {EMRServerlessResponse}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_the_server_and_its_token_stays_used(tmp_path: Path, number: signal.Signals) -> None:
    server = Server(tmp_path)
    job = Job(server, server.application(), SLEEPER)
    job.wait("RUNNING")
    wait_until(lambda: len(job.processes()) >= 3)
    server.process.send_signal(number)
    server.process.wait(30)
    wait_until(lambda: job.processes() == [])
    server.start()
    try:
        run = job.shown()
        assert (run["state"], "stand-in ended" in run["stateDetails"]) == ("FAILED", True)
        assert server.emr.start_job_run(**job.request)["jobRunId"] == job.name
        assert job.shown()["state"] == "FAILED"
    finally:
        server.process.kill()
        server.process.wait(30)
