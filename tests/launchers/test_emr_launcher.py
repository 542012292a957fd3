"""The launcher `emr`, against its stand-in: what it sends, what a retry reaches, what a kill ends, what a failed step says."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from emr_stand_in import Server, processes_of, serving, wait_until
from orchard.attempts import Attempts
from orchard.launchers import JobRequest, launcher_for
from orchard.launchers.emr import AddEmrStep, EmrStepTrigger
from orchard.launchers.request import Planned
from orchard.settings import Settings
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.storage import Warehouse

GOLDEN = Path(__file__).parents[1] / "golden"
VARIABLES = {"ORCHARD_TARGET": "emr", "ORCHARD_JOBS_URI": "s3://jobs/orchard-0.1.0-abc", "ORCHARD_EMR_CLUSTER": "{}"}
PLANNED = Planned("file:///x/head.json", "d" * 64, "backbone-1", ("featurize",))
SLEEPER = "import time; time.sleep(300)"


class Context(dict[str, Any]):
    """A task context with the plan in its XCom."""

    def __init__(self, planned: Planned) -> None:
        super().__init__(ti=self)
        self.planned, self.pushed = planned, dict[str, Any]()

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return asdict(self.planned) if task_ids == "plan_batch" else self.pushed[key]

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("emr")) as server:
        yield server


@pytest.fixture
def settings(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in (("ENDPOINT_URL", server.address), ("ACCESS_KEY_ID", "any"), ("SECRET_ACCESS_KEY", "thing")):
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


def defer(operator: AddEmrStep, context: Context) -> EmrStepTrigger:
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    path, fields = deferred.value.trigger.serialize()
    assert path == "orchard.launchers.emr.EmrStepTrigger"
    return EmrStepTrigger(**fields)  # as the triggerer makes it


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("given", {"ORCHARD_EMR_CLUSTER": "j-1A2B3C", "ORCHARD_JOBS_ENVIRONMENT": "s3://jobs/environment.tar.gz"}),
        ("new", {"ORCHARD_EMR_CLUSTER": '{"ServiceRole": "mine"}', "ORCHARD_JOB_TAGS": '{"team": "fruit"}'}),
    ],
)
def test_what_is_sent_is_the_golden_request(name: str, variables: dict[str, str]) -> None:
    given = Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": "s3://lake/warehouse"} | variables)
    operator = launcher_for(given).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert isinstance(operator, AddEmrStep)
    sent = {"cluster": operator.job_flow_id, "new_cluster": operator.new_cluster, "steps": operator.steps}
    assert json.loads(json.dumps(sent)) == json.loads((GOLDEN / f"emr_{name}_cluster.json").read_text())


def test_a_cluster_that_is_made_always_ends_by_itself() -> None:
    fields = '{"Instances": {"KeepJobFlowAliveWhenNoSteps": true, "TerminationProtected": true, "InstanceGroups": []}}'
    given = Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": "s3://lake/w", "ORCHARD_EMR_CLUSTER": fields})
    operator = launcher_for(given).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert operator.new_cluster["Instances"] == {  # type: ignore[attr-defined]
        "KeepJobFlowAliveWhenNoSteps": False,
        "TerminationProtected": False,
        "InstanceGroups": [],
    }


def test_a_retry_reaches_the_step_and_a_kill_ends_it_with_its_cluster(settings: Settings, server: Server) -> None:
    planned = replace(PLANNED, input_digest="a" * 64)
    first, second = (defer(operator_of(settings, server, SLEEPER), Context(planned)) for _ in range(2))
    assert first.serialize() == second.serialize()
    fields = first.serialize()[1]
    cluster, (step,) = fields["job_flow_id"], fields["step_ids"]
    wait_until(lambda: processes_of(step), 30)
    asyncio.run(second.on_kill())
    wait_until(lambda: not processes_of(step), 10)
    emr = server.client("emr")
    wait_until(lambda: emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] == "TERMINATED", 20)
    third = defer(operator_of(settings, server, SLEEPER), Context(planned)).serialize()[1]
    assert third["job_flow_id"] != cluster
    emr.terminate_job_flows(JobFlowIds=[third["job_flow_id"]])


def test_on_a_cluster_that_is_there_a_kill_ends_the_step_alone(settings: Settings, server: Server) -> None:
    emr = server.client("emr")
    cluster = emr.run_job_flow(
        Name="kept", Instances={"KeepJobFlowAliveWhenNoSteps": True}, ReleaseLabel="emr-7.11.0", ServiceRole="a", JobFlowRole="b"
    )["JobFlowId"]
    operator = operator_of(replace(settings, emr_cluster=cluster), server, SLEEPER)
    step = defer(operator, Context(replace(PLANNED, input_digest="b" * 64))).serialize()[1]["step_ids"][0]
    wait_until(lambda: processes_of(step), 30)
    operator.on_kill()
    wait_until(lambda: emr.describe_step(ClusterId=cluster, StepId=step)["Step"]["Status"]["State"] == "CANCELLED", 20)
    assert emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] in ("RUNNING", "WAITING")
    emr.terminate_job_flows(JobFlowIds=[cluster])


def test_a_failed_step_tells_its_reason_and_its_last_line(
    settings: Settings, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    planned, failing = replace(PLANNED, input_digest="c" * 64), "raise ValueError('no memory')"
    context = Context(planned)
    trigger = defer(operator_of(settings, server, failing), context)

    async def wait() -> Any:
        trigger.waiter_delay = 1
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(wait())
    with pytest.raises(JobError, match=r"EMR step s-\w+ of j-\w+ is FAILED: ValueError: no memory: ValueError: no memory"):
        operator_of(settings, server, failing).execute_complete(context, event.payload)
    assert "job: Traceback" in caplog.text
    assert Attempts(Warehouse.at(settings.warehouse), planned.work("featurize")).current == 2


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ORCHARD_EMR_CLUSTER", "", "ORCHARD_EMR_CLUSTER is empty, and ORCHARD_TARGET=emr needs it"),
        ("ORCHARD_EMR_CLUSTER", "my cluster", "neither a cluster's id such as `j-1A2B3C` nor a JSON object"),
        ("ORCHARD_JOBS_URI", "", "ORCHARD_JOBS_URI is empty"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        launcher_for(Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": "/tmp/w", variable: value}))
