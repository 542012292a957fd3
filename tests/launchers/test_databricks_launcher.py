"""The launcher `databricks`: what it sends, what a retry reaches, and what a failed run says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from orchard.deployment.package import WHEEL, build_package
from orchard.launchers import launcher_for
from orchard.launchers.attempts import Attempts
from orchard.launchers.databricks import SubmitDatabricksRun
from orchard.launchers.request import JobRequest
from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.storage import Warehouse
from support.fake_databricks import Workspace
from support.package_place import PackagePlace
from support.repository import ROOT
from support.task_context import TaskContext

PLANNED = PlannedJobs("file:///x/head.json", "d" * 64, "backbone-1", ("featurize",))
WORK = PLANNED.work("featurize")
VARIABLES = {"ORCHARD_TARGET": "databricks", "ORCHARD_JOBS_URI": "/Volumes/main/orchard/jobs/orchard-jobs-0.1.0-abc"}
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("orchard.deployment.deployed_package.destination_of", PackagePlace)
    return Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": str(tmp_path)})


@pytest.fixture
def attempts(settings: Settings) -> Attempts:
    return Attempts(Warehouse.at(settings.warehouse), WORK)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Workspace:
    made = Workspace()
    hook = "airflow.providers.databricks.hooks.databricks.DatabricksHook"
    monkeypatch.setattr(f"{hook}._do_api_call", lambda self, endpoint, json=None, **rest: made.call(endpoint, json))
    return made


LAKE = {"ORCHARD_WAREHOUSE": "s3://lake/warehouse", "ORCHARD_DATABRICKS_CREDENTIAL": "lake"}
OWN_LOG_IN = {"ORCHARD_DATABRICKS_CREDENTIAL": ""}


def operator_of(settings: Settings, **changes: Any) -> SubmitDatabricksRun:
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert isinstance(operator, SubmitDatabricksRun)
    for name, value in changes.items():
        setattr(operator, name, value)
    return operator


def defer(settings: Settings, context: TaskContext | None = None) -> int:
    """Execute up to the wait; return the run that is waited for."""
    with pytest.raises(TaskDeferred) as deferred:
        operator_of(settings).execute(context or TaskContext(PLANNED))
    run: int = deferred.value.trigger.serialize()[1]["run_id"]
    return run


def sent(settings: Settings, **variables: str) -> dict[str, Any]:
    given = Settings.from_environment(VARIABLES | LAKE | variables)
    operator = launcher_for(given).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert isinstance(operator, SubmitDatabricksRun)
    assert (operator.pool, operator.deferrable) == ("spark", True)
    operator.idempotency_token = "token"
    body: dict[str, Any] = json.loads(json.dumps(operator._get_merged_json()))
    return body


CLUSTER = '{"policy_id": "p-1", "aws_attributes": {"instance_profile_arn": "arn:aws:iam::1:instance-profile/jobs"}}'


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("serverless", {}),
        ("new_cluster", {"ORCHARD_DATABRICKS_CLUSTER": CLUSTER, "ORCHARD_JOB_TAGS": '{"team": "fruit"}', **OWN_LOG_IN}),
        ("gpu_cluster", {"ORCHARD_DATABRICKS_CLUSTER": "{}", "ORCHARD_ENGINE": "cuda", **OWN_LOG_IN}),
        ("existing_cluster", {"ORCHARD_DATABRICKS_CLUSTER": "0923-164208-meows279", "ORCHARD_SOURCE": "fetch", **OWN_LOG_IN}),
    ],
)
def test_what_is_sent_is_the_golden_request(name: str, variables: dict[str, str], settings: Settings) -> None:
    assert sent(settings, **variables) == json.loads((GOLDEN / f"databricks_submit_{name}.json").read_text())


def test_a_pool_brings_its_own_nodes(settings: Settings) -> None:
    (task,) = sent(settings, ORCHARD_DATABRICKS_CLUSTER='{"instance_pool_id": "pool-1"}', **OWN_LOG_IN)["tasks"]
    assert task["new_cluster"].keys() == {"instance_pool_id", "spark_version", "data_security_mode", "autoscale", "custom_tags"}


@pytest.mark.parametrize(
    ("cluster", "source"),
    [
        ("serverless", "spark"),
        ("0923-164208-meows279", "spark"),
        ("{}", "fetch"),
        ('{"data_security_mode": "USER_ISOLATION"}', "spark"),
    ],
)
def test_spark_reads_the_images_where_workers_have_no_network(cluster: str, source: str, settings: Settings) -> None:
    (task,) = sent(settings, ORCHARD_DATABRICKS_CLUSTER=cluster)["tasks"]
    parameters = task["python_wheel_task"]["parameters"]
    assert parameters[parameters.index("--source") + 1] == source


def test_the_wheel_that_is_named_is_the_one_that_is_deployed(settings: Settings) -> None:
    package = build_package()
    assert WHEEL in package.files
    (environment,) = sent(settings)["environments"]
    assert environment["spec"]["dependencies"][0] == f"{VARIABLES['ORCHARD_JOBS_URI']}/{WHEEL}"
    assert b"orchard-jobs-task" in package.files[WHEEL]


def test_a_retry_reaches_the_run_that_is_under_way(settings: Settings, workspace: Workspace) -> None:
    assert [defer(settings), defer(settings)] == [1, 1]
    assert len(workspace.submitted) == 1


def test_a_retry_reaches_a_run_that_nobody_lived_to_record(
    settings: Settings, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attempts, "record_start", lambda self, attempt, job: None)
    assert [defer(settings), defer(settings)] == [1, 1]
    assert len({request["idempotency_token"] for request in workspace.submitted}) == 1


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_run_that_databricks_does_not_tell_about_is_not_taken_for_gone(
    status: int, settings: Settings, attempts: Attempts, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    defer(settings)

    def get(json: dict[str, Any]) -> dict[str, Any]:
        raise DatabricksApiError("not now", http_status_code=status)

    monkeypatch.setattr(workspace, "get", get)
    with pytest.raises(DatabricksApiError, match="not now"):
        operator_of(settings).execute(TaskContext(PLANNED))
    assert (len(workspace.submitted), attempts.current) == (1, 1)


@pytest.mark.parametrize("result", ["FAILED", "TIMEDOUT", "CANCELED", "SUCCESS", "GONE"])
def test_a_run_that_ended_unseen_is_not_replayed(
    result: str, settings: Settings, attempts: Attempts, workspace: Workspace
) -> None:
    """Also one that ended well, since its report is not there."""
    assert defer(settings) == 1
    if result == "GONE":
        workspace.states.clear()
    else:
        workspace.end(1, result)
    assert defer(settings) == 2
    assert attempts.current == 2


def test_a_run_that_is_being_ended_is_waited_for(
    settings: Settings, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    defer(settings)
    workspace.states[1] = {"life_cycle_state": "TERMINATING", "state_message": ""}
    monkeypatch.setattr("orchard.launchers.resumable_job.time.sleep", lambda seconds: workspace.end(1, "CANCELED"))
    assert defer(settings) == 2


def test_a_finished_report_starts_nothing(settings: Settings, workspace: Workspace) -> None:
    Warehouse.at(settings.warehouse).create(report_path(WORK), b"{}")
    with pytest.raises(AirflowSkipException, match="reusing its report"):
        operator_of(settings).execute(TaskContext(PLANNED))
    assert workspace.submitted == []


def test_a_failed_run_tells_its_error_and_its_trace(
    settings: Settings, attempts: Attempts, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    context = TaskContext(PLANNED)
    defer(settings, context)
    workspace.end(1, "FAILED")
    event = {"run_id": 1, "run_page_url": "http://w/run", "errors": [], "run_state": json.dumps(workspace.states[1])}
    with pytest.raises(JobError, match="run 1 is FAILED: message of 1: JobError: no memory in 10"):
        operator_of(settings).execute_complete(context, event)
    for line in ("began", "Traceback", "  in featurize"):
        assert f"job: {line}" in caplog.text
    assert attempts.current == 2
    assert defer(settings) == 2


def test_a_run_that_ends_well_ends_the_task(settings: Settings, attempts: Attempts, workspace: Workspace) -> None:
    context = TaskContext(PLANNED)
    defer(settings, context)
    workspace.end(1, "SUCCESS")
    event = {"run_id": 1, "run_page_url": "x", "errors": [], "run_state": json.dumps(workspace.states[1])}
    operator_of(settings).execute_complete(context, event)
    assert attempts.current == 1


def test_without_deferral_a_failed_run_is_told_alike(settings: Settings, attempts: Attempts, workspace: Workspace) -> None:
    workspace.of_token[attempts.token(1)] = 1
    workspace.end(1, "FAILED")
    with pytest.raises(JobError, match="run 1 is FAILED: message of 1"):
        operator_of(settings, deferrable=False).execute(TaskContext(PLANNED))
    assert attempts.current == 2
    assert workspace.cancelled == []


def test_a_run_that_cannot_be_followed_goes_on_and_is_reached_again(
    settings: Settings, attempts: Attempts, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_run(self: Any, run_id: int) -> Any:
        raise DatabricksApiError("API requests to Databricks failed 3 times", http_status_code=500)

    with monkeypatch.context() as patched:
        patched.setattr("airflow.providers.databricks.hooks.databricks.DatabricksHook.get_run", get_run)
        with pytest.raises(JobError, match=r"run 1 \(last state RUNNING\): "):
            operator_of(settings, deferrable=False).execute(TaskContext(PLANNED))
    assert (attempts.current, workspace.cancelled) == (1, [])
    assert defer(settings) == 1


def test_a_killed_task_cancels_its_run(settings: Settings, workspace: Workspace) -> None:
    operator = operator_of(settings)
    with pytest.raises(TaskDeferred):
        operator.execute(TaskContext(PLANNED))
    kill: Callable[[], None] = operator.on_kill
    kill()
    assert workspace.cancelled == [1]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ORCHARD_JOBS_URI", "", "ORCHARD_JOBS_URI is not set: ORCHARD_TARGET=databricks needs it"),
        ("ORCHARD_DATABRICKS_CLUSTER", "{not json", r"ORCHARD_DATABRICKS_CLUSTER=\*\*\*: not a JSON object"),
        ("ORCHARD_DATABRICKS_CLUSTER", "a b", "neither `serverless`, nor a cluster's id, nor a JSON object"),
        ("ORCHARD_DATABRICKS_CLUSTER", '{"spot": true}', "ORCHARD_DATABRICKS_CLUSTER=.*spot: not a cluster field"),
        ("ORCHARD_DATABRICKS_CLUSTER", '{"spark_version": 5}', "ORCHARD_DATABRICKS_CLUSTER=.*spark_version must be str, not int"),
        ("ORCHARD_DATABRICKS_CLUSTER", '{"custom_tags": "x"}', "ORCHARD_DATABRICKS_CLUSTER=.*custom_tags must be dict, not str"),
        ("ORCHARD_DATABRICKS_CLUSTER", '{"aws_attributes": "x"}', "ORCHARD_DATABRICKS_CLUSTER=.*not the fields of a cluster"),
        ("ORCHARD_DATABRICKS_CLUSTER", '{"num_workers": 2, "autoscale": {"max_workers": 3}}', "either num_workers or autoscale"),
        ("ORCHARD_JOBS_URI", "s3://code/jobs", "ORCHARD_JOBS_URI='s3://code/jobs': target databricks needs a folder below"),
        ("ORCHARD_ENGINE", "cuda", "ORCHARD_ENGINE='cuda': serverless compute has no GPU: set ORCHARD_DATABRICKS_CLUSTER"),
        ("ORCHARD_SOURCE", "http", "must be one of fetch, spark"),
        ("ORCHARD_WAREHOUSE", "s3://lake/warehouse", "ORCHARD_DATABRICKS_CREDENTIAL is not set"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, words: str, tmp_path: Path) -> None:
    variables = VARIABLES | {"ORCHARD_WAREHOUSE": str(tmp_path), variable: value}
    with pytest.raises(ConfigurationError, match=words):
        launcher_for(Settings.from_environment(variables)).operator(JobRequest("featurize", plan_task="plan_batch"))


def test_a_backbone_that_was_not_deployed_fails_before_a_submission(settings: Settings) -> None:
    launcher = launcher_for(settings)
    with pytest.raises(ConfigurationError, match="orchard deploy"):
        launcher.prepare(settings.backbone)
    Warehouse.at(settings.warehouse).create(backbone_path(settings.backbone.id), b"network")
    launcher.prepare(settings.backbone)


def test_another_package_than_was_deployed_fails_before_a_submission(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = replace(settings, backbone=backbone_named("efficientnet_lite0", "tensorflow"))
    launcher_for(tensorflow).prepare(tensorflow.backbone)
    monkeypatch.setitem(PackagePlace.files, WHEEL, b"another")
    with pytest.raises(ConfigurationError, match=f"{WHEEL} does not match its manifest"):
        launcher_for(tensorflow).prepare(tensorflow.backbone)


def test_tensorflow_needs_no_deployed_backbone(settings: Settings) -> None:
    tensorflow = replace(settings, backbone=backbone_named("efficientnet_lite0", "tensorflow"))
    launcher_for(tensorflow).prepare(tensorflow.backbone)
