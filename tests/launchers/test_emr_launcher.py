"""The launcher `emr`, against its stand-in: what it sends, what a retry reaches, what a kill ends, what a failed step says."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from botocore.exceptions import ClientError
from orchard.deployment.package import ENTRY, build_package
from orchard.launchers import launcher_for
from orchard.launchers.attempts import Attempts
from orchard.launchers.emr import AddEmrStep, EmrStepTrigger
from orchard.launchers.emr_hook import NamingEmrHook
from orchard.launchers.request import JobRequest
from orchard.launchers.resumable_job import JobState
from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.storage import Warehouse
from support import aws_wire
from support.changed_settings import with_variables
from support.emr_stand_in import Server, packed_environment, processes_of, serving, wait_until
from support.repository import ROOT
from support.task_context import TaskContext

GOLDEN = ROOT / "tests" / "golden"
IMAGE = '{"CustomAmiId": "ami-0123456789abcdef0"}'
VARIABLES = {"ORCHARD_TARGET": "emr", "ORCHARD_JOBS_URI": "s3://jobs/orchard-0.1.0-abc", "ORCHARD_EMR_CLUSTER": IMAGE}
PLANNED = PlannedJobs("file:///x/head.json", "d" * 64, "backbone-1", ("featurize",))
SLEEPER = "import time; time.sleep(300)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("emr")) as server:
        yield server


@pytest.fixture
def settings(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in (("ENDPOINT_URL", server.address), ("ACCESS_KEY_ID", "orchard"), ("SECRET_ACCESS_KEY", "thing")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws"}')
    return Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": str(tmp_path)})


def operator_of(settings: Settings, server: Server, script: str) -> AddEmrStep:
    server.put("orchard-0.1.0-abc/run_job.py", script)
    server.put("orchard-0.1.0-abc/orchard_jobs.zip", b"PK\x05\x06" + b"\0" * 18)
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert isinstance(operator, AddEmrStep)
    assert (operator.pool, operator.deferrable) == ("spark", True)
    return operator


def defer(operator: AddEmrStep, context: TaskContext) -> EmrStepTrigger:
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    path, fields = deferred.value.trigger.serialize()
    assert path == "orchard.launchers.emr.EmrStepTrigger"
    return EmrStepTrigger(**fields)  # as the triggerer makes it


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("given", {"ORCHARD_EMR_CLUSTER": "j-1A2B3C", "ORCHARD_JOBS_ENVIRONMENT": "s3://jobs/environment.tar.gz"}),
        (
            "new",
            {
                "ORCHARD_EMR_CLUSTER": '{"ServiceRole": "mine", "CustomAmiId": "ami-0123456789abcdef0"}',
                "ORCHARD_JOB_TAGS": '{"team": "fruit"}',
            },
        ),
    ],
)
def test_what_is_sent_is_the_golden_request(name: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it goes over the wire. A cluster that is made brings its step, which is found there."""
    given = Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": "s3://lake/warehouse"} | variables)
    operator = launcher_for(given).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert isinstance(operator, AddEmrStep)
    there = [{"Id": "s-1", "Name": f"orchard-reduce-{aws_wire.TOKEN}"}] if name == "new" else []
    answers: dict[str, dict[str, Any]] = {
        "ListClusters": {"Clusters": []},
        "RunJobFlow": {"JobFlowId": "j-1"},
        "DescribeCluster": {"Cluster": {"Id": "j-1"}},
        "ListSteps": {"Steps": there},
        "AddJobFlowSteps": {"StepIds": ["s-1"]},
    }
    sent = aws_wire.record(lambda name, body: answers[name.partition(".")[2]], monkeypatch)
    aws_wire.without_attempts(monkeypatch)
    with pytest.raises(TaskDeferred):
        operator.execute(TaskContext(PLANNED))
    changing = [[name, body] for name, body in sent if "Run" in name or "Add" in name]
    assert changing == json.loads((GOLDEN / f"emr_{name}_cluster.json").read_text())


def test_a_cluster_that_is_made_always_ends_by_itself() -> None:
    instances = '{"KeepJobFlowAliveWhenNoSteps": true, "TerminationProtected": true, "InstanceGroups": []}'
    fields = f'{{"Instances": {instances}, "BootstrapActions": []}}'
    given = Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": "s3://lake/w", "ORCHARD_EMR_CLUSTER": fields})
    operator = launcher_for(given).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert isinstance(operator, AddEmrStep)
    assert operator.new_cluster is not None
    assert operator.new_cluster["Instances"] == {
        "KeepJobFlowAliveWhenNoSteps": False,
        "TerminationProtected": False,
        "InstanceGroups": [],
    }


def test_a_retry_reaches_the_step_and_a_kill_ends_it_with_its_cluster(settings: Settings, server: Server) -> None:
    planned = replace(PLANNED, input_digest="a" * 64)
    first, second = (defer(operator_of(settings, server, SLEEPER), TaskContext(planned)) for _ in range(2))
    assert first.serialize() == second.serialize()
    fields = first.serialize()[1]
    cluster, (step,) = fields["job_flow_id"], fields["step_ids"]
    wait_until(lambda: processes_of(step))
    asyncio.run(second.on_kill())
    wait_until(lambda: not processes_of(step))
    emr = server.client("emr")
    wait_until(lambda: emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] == "TERMINATED")
    third = defer(operator_of(settings, server, SLEEPER), TaskContext(planned)).serialize()[1]
    assert third["job_flow_id"] != cluster
    emr.terminate_job_flows(JobFlowIds=[third["job_flow_id"]])


def test_on_a_cluster_that_is_there_a_kill_ends_the_step_alone(settings: Settings, server: Server) -> None:
    emr = server.client("emr")
    cluster = emr.run_job_flow(
        Name="kept", Instances={"KeepJobFlowAliveWhenNoSteps": True}, ReleaseLabel="emr-7.11.0", ServiceRole="a", JobFlowRole="b"
    )["JobFlowId"]
    operator = operator_of(with_variables(settings, ORCHARD_EMR_CLUSTER=cluster), server, SLEEPER)
    step = defer(operator, TaskContext(replace(PLANNED, input_digest="b" * 64))).serialize()[1]["step_ids"][0]
    wait_until(lambda: processes_of(step))
    operator.on_kill()
    wait_until(lambda: emr.describe_step(ClusterId=cluster, StepId=step)["Step"]["Status"]["State"] == "CANCELLED")
    assert emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] in ("RUNNING", "WAITING")
    emr.terminate_job_flows(JobFlowIds=[cluster])


def test_two_tries_at_once_make_one_cluster(settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs of one batch, say: neither finds the other's cluster when it looks."""
    monkeypatch.setattr("orchard.launchers.emr_hook._CLAIMED_POLL_SECONDS", 0.2)
    planned, looks = replace(PLANNED, input_digest="e" * 64), threading.Barrier(2)
    look = NamingEmrHook._cluster_named
    first_look = threading.local()

    def together(hook: NamingEmrHook, name: str) -> str | None:
        found = look(hook, name)
        if not hasattr(first_look, "is_over"):
            first_look.is_over = looks.wait(120)
        return found

    monkeypatch.setattr(NamingEmrHook, "_cluster_named", together)
    operators = [operator_of(settings, server, SLEEPER) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        triggers = list(pool.map(lambda operator: defer(operator, TaskContext(planned)), operators))
    assert triggers[0].serialize() == triggers[1].serialize()
    server.client("emr").terminate_job_flows(JobFlowIds=[triggers[0].serialize()[1]["job_flow_id"]])


def test_a_claim_whose_try_died_holds_up_the_next_one_for_a_while_only(
    settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchard.launchers.emr_hook._CLAIMED_POLL_SECONDS", 0.1)
    monkeypatch.setattr("orchard.launchers.emr_hook._CLAIMED_SECONDS", 0.5)
    planned = replace(PLANNED, input_digest="f" * 64)
    assert Attempts(Warehouse.at(settings.warehouse), planned.work("featurize")).claim(1)
    trigger = defer(operator_of(settings, server, SLEEPER), TaskContext(planned))
    server.client("emr").terminate_job_flows(JobFlowIds=[trigger.serialize()[1]["job_flow_id"]])


def test_only_a_step_that_takes_too_long_is_cancelled(settings: Settings, server: Server) -> None:
    planned = replace(PLANNED, input_digest="9" * 64)
    context = TaskContext(planned)
    step = defer(operator_of(settings, server, SLEEPER), context).serialize()[1]["step_ids"][0]
    wait_until(lambda: processes_of(step))
    attempts = Attempts(Warehouse.at(settings.warehouse), planned.work("featurize"))
    event = {"status": "error", "message": "An error occurred (InternalServerException)"}
    with pytest.raises(JobError, match=r"\(last state RUNNING\): .*InternalServerException"):
        operator_of(settings, server, SLEEPER).execute_complete(context, event)
    assert processes_of(step)
    assert attempts.current == 1
    event = {"status": "error", "message": "Waiter error: max attempts reached"}
    with pytest.raises(
        JobError, match="is CANCELLED: it took longer than ORCHARD_JOB_MINUTES allows; Terminated by user request"
    ):
        operator_of(settings, server, SLEEPER).execute_complete(context, event)
    assert not processes_of(step)
    assert attempts.current == 2


def test_an_environments_archive_runs_driver_and_workers(settings: Settings, server: Server, tmp_path: Path) -> None:
    """The step's own script unpacks it for the driver, Spark for the executors, which here are one process."""
    script = """
import sys
import pyarrow
from pyspark.sql import SparkSession
def where(batches):
    yield pyarrow.RecordBatch.from_pydict({"prefix": [sys.prefix]})
spark = SparkSession.builder.getOrCreate()
print(sys.prefix, spark.range(1).mapInArrow(where, "prefix string").collect()[0].prefix)
"""
    uri = server.put("environment.tar.gz", packed_environment(tmp_path))
    context = TaskContext(replace(PLANNED, input_digest="8" * 64))
    operator = operator_of(with_variables(settings, ORCHARD_JOBS_ENVIRONMENT=uri), server, script)
    fields = defer(operator, context).serialize()[1]
    emr, step = server.client("emr"), fields["step_ids"][0]
    emr.get_waiter("step_complete").wait(
        ClusterId=fields["job_flow_id"], StepId=step, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    driver, worker = operator.last_lines({"cluster_id": fields["job_flow_id"], "step_id": step})[-1].split()
    assert driver == worker
    assert driver.endswith("/environment")


class Told:
    """EMR as it tells of one step."""

    def __init__(self, state: str, details: dict[str, str] | None = None) -> None:
        self.state, self.details = state, details

    def describe_step(self, ClusterId: str, StepId: str) -> dict[str, Any]:
        if self.state == "GONE":
            raise ClientError({"Error": {"Code": "InvalidRequestException", "Message": "Step id is not valid"}}, "DescribeStep")
        return {"Step": {"Status": {"State": self.state, "FailureDetails": self.details or {}}}}

    def describe_cluster(self, ClusterId: str) -> dict[str, Any]:
        return {"Cluster": {"LogUri": "s3n://old/logs/", "Status": {"StateChangeReason": {"Message": "no capacity"}}}}


def seen(told: Told, cluster: str, monkeypatch: pytest.MonkeyPatch) -> JobState:
    given = Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": "s3://lake/w", "ORCHARD_EMR_CLUSTER": cluster})
    operator = launcher_for(given).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert isinstance(operator, AddEmrStep)
    monkeypatch.setattr(AddEmrStep, "_client", property(lambda self: told))
    folders: list[str] = []
    monkeypatch.setattr("orchard.launchers.emr.stored_lines", lambda conn, folder, streams: folders.append(folder))
    operator.last_lines({"cluster_id": "j-1", "step_id": "s-1"})
    assert folders == ["s3://old/logs/j-1/steps/s-1"]
    return operator.job_state({"cluster_id": "j-1", "step_id": "s-1"})


def test_every_state_that_emr_has_is_known_to_be_an_end_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    states = aws_wire.enum_of("emr", "StepState")
    found = {state: seen(Told(state), "j-1", monkeypatch) for state in (*states, "GONE", "A_NEW_WORD")}
    over = {"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED", "GONE"}
    assert {state for state, one in found.items() if one.is_over} == over
    assert {state for state, one in found.items() if one.is_ending} == {"CANCEL_PENDING"}


def test_a_step_tells_why_its_own_cluster_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    details = {"Reason": "Unknown Error.", "Message": "exit 1"}
    assert seen(Told("FAILED", details), IMAGE, monkeypatch).reason == "Unknown Error.; exit 1; no capacity"
    assert seen(Told("CANCELLED"), IMAGE, monkeypatch).reason == "no capacity"
    assert seen(Told("CANCELLED"), "j-1", monkeypatch).reason == ""


def test_a_step_is_looked_for_on_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    first: dict[str, Any] = {"Steps": [{"Id": "s-1", "Name": "other"}], "Marker": "2"}
    second: dict[str, Any] = {"Steps": [{"Id": "s-2", "Name": "ours"}]}
    aws_wire.record(lambda name, body: second if body.get("Marker") == "2" else first, monkeypatch)
    assert NamingEmrHook(aws_conn_id="aws_default")._step_named("j-1", "ours") == "s-2"


def test_a_failed_step_tells_its_reason_and_its_last_line(
    settings: Settings, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    planned, failing = replace(PLANNED, input_digest="c" * 64), "raise ValueError('no memory')"
    context = TaskContext(planned)
    trigger = defer(operator_of(settings, server, failing), context)

    async def wait() -> Any:
        trigger.waiter_delay = 1
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(wait())
    with pytest.raises(JobError, match=r"EMR step s-\w+ of j-\w+ is FAILED: .*ValueError: no memory.*: ValueError: no memory"):
        operator_of(settings, server, failing).execute_complete(context, event.payload)
    assert "job: Traceback" in caplog.text
    assert Attempts(Warehouse.at(settings.warehouse), planned.work("featurize")).current == 2


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ORCHARD_EMR_CLUSTER", "", "ORCHARD_EMR_CLUSTER is not set: ORCHARD_TARGET=emr needs it"),
        ("ORCHARD_EMR_CLUSTER", "my cluster", "neither a cluster's id such as `j-1A2B3C` nor a JSON object"),
        ("ORCHARD_EMR_CLUSTER", '{"Instances": []}', "ORCHARD_EMR_CLUSTER=.*Invalid type for parameter Instances"),
        ("ORCHARD_EMR_CLUSTER", '{"ReleaseLabel": 7}', "ORCHARD_EMR_CLUSTER=.*Invalid type for parameter ReleaseLabel"),
        ("ORCHARD_EMR_CLUSTER", '{"Foo": 1}', 'ORCHARD_EMR_CLUSTER=.*Unknown parameter in input: "Foo"'),
        ("ORCHARD_EMR_CLUSTER", '{"Name": "mine"}', "ORCHARD_EMR_CLUSTER=.*Name: the launcher gives it"),
        ("ORCHARD_EMR_CLUSTER", "{}", "ORCHARD_JOBS_ENVIRONMENT is not set: EMR's own image lacks what the jobs import"),
        ("ORCHARD_ENGINE", "cuda", "ORCHARD_EMR_CLUSTER=.*: ORCHARD_ENGINE=cuda needs nodes with GPUs in Instances"),
        ("ORCHARD_JOBS_URI", "", "ORCHARD_JOBS_URI is not set"),
        (
            "ORCHARD_JOBS_URI",
            "/Volumes/main/jobs/code",
            "ORCHARD_JOBS_URI='/Volumes/main/jobs/code': target emr needs an s3:// URI",
        ),
        ("ORCHARD_JOBS_URI", "s3://code/with space", "ORCHARD_JOBS_URI='s3://code/with space': not of the form"),
        ("ORCHARD_JOBS_LOGS", "/tmp/logs", "ORCHARD_JOBS_LOGS='/tmp/logs': not of the form s3://bucket/key"),
        ("ORCHARD_JOBS_ENVIRONMENT", "env.tar.gz", "ORCHARD_JOBS_ENVIRONMENT='env.tar.gz': not of the form"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, words: str) -> None:
    variables = VARIABLES | {"ORCHARD_WAREHOUSE": "/tmp/w", variable: value}
    with pytest.raises(ConfigurationError, match=words):
        launcher_for(Settings.from_environment(variables)).operator(JobRequest("featurize", plan_task="plan_batch"))


def test_another_package_than_was_deployed_fails_before_a_submission(settings: Settings, server: Server) -> None:
    package = build_package()
    for name, content in package.files.items():
        server.put(f"{package.name}/{name}", content)
    Warehouse.at(settings.warehouse).create(backbone_path(settings.backbone.id), b"network")
    deployed = with_variables(settings, ORCHARD_JOBS_URI=f"s3://jobs/{package.name}")
    launcher_for(deployed).prepare(deployed.backbone)
    server.put(f"{package.name}/{ENTRY}", b"another")
    with pytest.raises(ConfigurationError, match=f"{ENTRY} does not match its manifest"):
        launcher_for(deployed).prepare(deployed.backbone)
