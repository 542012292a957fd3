"""EMR's clusters and steps in the stand-in, through boto3 against a real server: what it says is what became of the processes."""

import gzip
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError, WaiterError
from botocore.validate import ParamValidator
from support.emr_stand_in import Server, check_wire, processes_of, serving, wait_until

MODEL = botocore.session.get_session().get_service_model("emr")
FIELDS = {"ReleaseLabel": "emr-7.11.0", "ServiceRole": "EMR_DefaultRole", "JobFlowRole": "EMR_EC2_DefaultRole"}
SLEEPER = """
    import subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    time.sleep(300)
"""


IN_CLUSTER_MODE = {
    "Name": "x",
    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", "--deploy-mode", "cluster", "s3://jobs/a.py"]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("emr"), is_quick=True) as server:
        yield server


@pytest.fixture
def emr(server: Server) -> Iterator[Any]:
    client = server.client("emr")
    client.meta.events.register("after-call.emr", check_answer)
    yield client
    server.no_faults()


def check_answer(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Fail where an answer does not fit botocore's shape."""
    if http_response.status_code >= 300:
        return
    if model.output_shape is not None:
        answer = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
        report = ParamValidator().validate(answer, model.output_shape)
        assert not report.has_errors(), report.generate_report()
        check_wire(model.output_shape, json.loads(http_response.content or b"{}"), model.name)


def step_of(server: Server, script: str, *arguments: str, **given: Any) -> dict[str, Any]:
    uri = server.put(f"scripts/{uuid.uuid4().hex}.py", script)
    words = ["spark-submit", "--deploy-mode", "client", "--conf", "spark.executor.memory=4g", uri, *arguments]
    return {
        "Name": "a step",
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": words},
    } | given


@pytest.fixture(scope="module")
def cluster(server: Server) -> str:
    """A cluster that waits for steps."""
    instances = {"KeepJobFlowAliveWhenNoSteps": True}
    made: str = server.client("emr").run_job_flow(Name="kept", Instances=instances, LogUri="s3://jobs/logs/", **FIELDS)[
        "JobFlowId"
    ]
    return made


def state(emr: Any, cluster: str, step: str) -> str:
    found: str = emr.describe_step(ClusterId=cluster, StepId=step)["Step"]["Status"]["State"]
    return found


def wait_for(emr: Any, cluster: str, step: str, *states: str) -> dict[str, Any]:
    over = states or ("COMPLETED", "FAILED", "CANCELLED")
    wait_until(lambda: state(emr, cluster, step) in over)
    shown: dict[str, Any] = emr.describe_step(ClusterId=cluster, StepId=step)["Step"]
    return shown


def test_a_step_runs_and_its_logs_lie_where_emr_puts_them(server: Server, emr: Any, cluster: str) -> None:
    (step,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step_of(server, "import sys; print(sys.argv[1:])", "a b", "--c")])[
        "StepIds"
    ]
    emr.get_waiter("step_complete").wait(ClusterId=cluster, StepId=step, WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    log = server.s3.get_object(Bucket="jobs", Key=f"logs/{cluster}/steps/{step}/stdout.gz")["Body"].read()
    assert gzip.decompress(log).decode().strip() == "['a b', '--c']"
    timeline = emr.describe_step(ClusterId=cluster, StepId=step)["Step"]["Status"]["Timeline"]
    assert timeline["CreationDateTime"] <= timeline["StartDateTime"] < timeline["EndDateTime"]
    wait_until(lambda: emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] == "WAITING")


def test_steps_run_one_after_the_other(server: Server, emr: Any, cluster: str) -> None:
    steps = [step_of(server, "import time; time.sleep(0.5)") for _ in range(3)]
    names = emr.add_job_flow_steps(JobFlowId=cluster, Steps=steps)["StepIds"]
    times = [wait_for(emr, cluster, name)["Status"]["Timeline"] for name in names]
    assert all(first["EndDateTime"] <= second["StartDateTime"] for first, second in zip(times, times[1:], strict=False))
    assert [step["Id"] for step in emr.list_steps(ClusterId=cluster)["Steps"]][:3] == names[::-1]


@pytest.mark.parametrize(
    ("script", "reason"),
    [("raise ValueError('no such fruit')", "ValueError: no such fruit"), ("import os; os.kill(os.getpid(), 9)", "signal 9")],
)
def test_a_failed_step_tells_why(script: str, reason: str, server: Server, emr: Any, cluster: str) -> None:
    (step,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step_of(server, script)])["StepIds"]
    with pytest.raises(WaiterError):
        emr.get_waiter("step_complete").wait(ClusterId=cluster, StepId=step, WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    shown = emr.describe_step(ClusterId=cluster, StepId=step)["Step"]
    assert shown["Status"]["State"] == "FAILED"
    assert reason in shown["Status"]["FailureDetails"]["Message"]


def test_a_script_that_is_not_there_fails_its_step(server: Server, emr: Any, cluster: str) -> None:
    step = step_of(server, "")
    step["HadoopJarStep"]["Args"][-1] = "s3://jobs/none.py"
    (name,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step])["StepIds"]
    assert "s3://jobs/none.py" in wait_for(emr, cluster, name)["Status"]["FailureDetails"]["Message"]


def test_a_cancelled_step_leaves_no_process_and_the_next_one_runs(server: Server, emr: Any, cluster: str) -> None:
    names = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step_of(server, SLEEPER), step_of(server, "")])["StepIds"]
    wait_for(emr, cluster, names[0], "RUNNING")
    wait_until(lambda: len(processes_of(names[0])) >= 2)
    told = emr.cancel_steps(ClusterId=cluster, StepIds=names[:1], StepCancellationOption="TERMINATE_PROCESS")
    assert told["CancelStepsInfoList"] == [{"StepId": names[0], "Status": "SUBMITTED"}]
    assert wait_for(emr, cluster, names[0])["Status"]["State"] == "CANCELLED"
    assert not processes_of(names[0])
    assert wait_for(emr, cluster, names[1])["Status"]["State"] == "COMPLETED"
    assert emr.cancel_steps(ClusterId=cluster, StepIds=names[:1])["CancelStepsInfoList"][0]["Status"] == "FAILED"


def test_a_cluster_without_more_steps_ends_by_itself(server: Server, emr: Any) -> None:
    name = emr.run_job_flow(Name="own", Instances={}, Steps=[step_of(server, "")], **FIELDS)["JobFlowId"]
    wait_until(lambda: emr.describe_cluster(ClusterId=name)["Cluster"]["Status"]["State"] == "TERMINATED")
    assert server.states(name) == ["STARTING", "BOOTSTRAPPING", "RUNNING", "TERMINATING", "TERMINATED"]
    assert [step["Status"]["State"] for step in emr.list_steps(ClusterId=name)["Steps"]] == ["COMPLETED"]
    with pytest.raises(ClientError, match="may not be modified"):
        emr.add_job_flow_steps(JobFlowId=name, Steps=[step_of(server, "")])


def test_a_failed_step_ends_its_cluster_when_it_says_so(server: Server, emr: Any) -> None:
    steps = [step_of(server, "1 / 0", ActionOnFailure="TERMINATE_CLUSTER"), step_of(server, "")]
    name = emr.run_job_flow(Name="own", Instances={"KeepJobFlowAliveWhenNoSteps": True}, Steps=steps, **FIELDS)["JobFlowId"]
    wait_until(lambda: emr.describe_cluster(ClusterId=name)["Cluster"]["Status"]["State"] == "TERMINATED_WITH_ERRORS")
    assert [step["Status"]["State"] for step in emr.list_steps(ClusterId=name)["Steps"]] == ["CANCELLED", "FAILED"]


def test_clusters_are_listed_since_a_date(emr: Any, cluster: str) -> None:
    newer = emr.run_job_flow(Name="newer", Instances={"KeepJobFlowAliveWhenNoSteps": True}, **FIELDS)["JobFlowId"]

    def listed(**given: Any) -> set[str]:
        return {found["Id"] for page in emr.get_paginator("list_clusters").paginate(**given) for found in page["Clusters"]}

    created = emr.describe_cluster(ClusterId=newer)["Cluster"]["Status"]["Timeline"]["CreationDateTime"]
    assert {cluster, newer} <= listed()
    later = listed(CreatedAfter=created)
    assert newer in later
    assert cluster not in later


def test_a_terminated_cluster_ends_its_steps(server: Server, emr: Any) -> None:
    name = emr.run_job_flow(Name="own", Instances={}, Steps=[step_of(server, SLEEPER)], **FIELDS)["JobFlowId"]
    (step,) = emr.list_steps(ClusterId=name)["Steps"]
    wait_until(lambda: len(processes_of(step["Id"])) >= 2)
    emr.terminate_job_flows(JobFlowIds=[name])
    wait_until(lambda: emr.describe_cluster(ClusterId=name)["Cluster"]["Status"]["State"] == "TERMINATED")
    assert not processes_of(step["Id"])
    assert state(emr, name, step["Id"]) == "CANCELLED"


def test_faults_end_a_step_or_keep_it_from_running(server: Server, emr: Any, cluster: str) -> None:
    for kind, reason in (("kill_job", "signal 9"), ("out_of_memory", "OutOfMemory"), ("no_execution", "nothing was run")):
        server.fault(kind, seconds=0.3)
        (step,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step_of(server, SLEEPER)])["StepIds"]
        shown = wait_for(emr, cluster, step)
        assert shown["Status"]["State"] == "FAILED"
        assert reason in shown["Status"]["FailureDetails"]["Message"]
    server.fault("throttle", operation="DescribeStep")
    with pytest.raises(ClientError, match="Throttling"):
        state(emr, cluster, step)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Instances": {}, "OSReleaseLabel": "2023"}, "OSReleaseLabel"),
        ({"Instances": {}, "ReleaseLabel": "emr-1"}, "release label"),
        ({"Instances": {}, "JobFlowRole": ""}, "JobFlowRole"),
        ({"Instances": {}, "StepConcurrencyLevel": 2}, "StepConcurrencyLevel"),
        ({"Instances": {}, "Steps": [IN_CLUSTER_MODE]}, "--deploy-mode client"),
        ({"Instances": {}, "Steps": [{"Name": "x", "HadoopJarStep": {"Jar": "s3://a/b.jar"}}]}, "none that this stand-in runs"),
    ],
)
def test_what_is_wrong_or_unknown_is_refused(change: dict[str, Any], words: str, emr: Any) -> None:
    with pytest.raises(ClientError, match=words):
        emr.run_job_flow(**{"Name": "x", **FIELDS, **change})
    with pytest.raises(ClientError, match="not valid"):
        emr.describe_cluster(ClusterId="j-NONE")
    with pytest.raises(ClientError, match="not known here"):
        emr.list_instances(ClusterId="j-NONE")


def test_a_stand_in_that_dies_leaves_no_process_and_knows_its_steps(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        client = server.client("emr")
        name = client.run_job_flow(Name="own", Instances={}, Steps=[step_of(server, SLEEPER)], **FIELDS)["JobFlowId"]
        (step,) = client.list_steps(ClusterId=name)["Steps"]
        wait_until(lambda: len(processes_of(step["Id"])) >= 2)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not processes_of(step["Id"]))
        server.start()
        client = server.client("emr")
        assert state(client, name, step["Id"]) == "FAILED"
        wait_until(lambda: client.describe_cluster(ClusterId=name)["Cluster"]["Status"]["State"] == "TERMINATED")


def test_a_change_of_moto_is_seen() -> None:
    import moto.emr.urls
    from moto.emr.responses import ElasticMapReduceResponse

    assert set(moto.emr.urls.url_paths) == {"{0}/$"}
    assert hasattr(ElasticMapReduceResponse, "dispatch")
    assert MODEL.protocol == "json"
