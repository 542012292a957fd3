"""The launcher `emr_serverless`: what it sends, what a retry reaches, and what a failed job says."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from botocore.exceptions import ClientError, EndpointConnectionError
from orchard.batch.cost import check_cost
from orchard.deployment.package import ZIP
from orchard.launchers import launcher_for
from orchard.launchers.attempts import Attempts
from orchard.launchers.emr_serverless import StartEmrServerlessJob
from orchard.launchers.request import JobRequest
from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.storage import Warehouse
from support import aws_wire
from support.changed_settings import with_variables
from support.fake_emr_serverless import Emr
from support.package_place import PackagePlace
from support.repository import ROOT
from support.task_context import TaskContext

PLANNED = PlannedJobs("file:///x/head.json", "d" * 64, "backbone-1", ("featurize",))
WORK = PLANNED.work("featurize")
VARIABLES = {
    "ORCHARD_TARGET": "emr_serverless",
    "ORCHARD_JOBS_URI": "s3://code/orchard-0.1.0-abc",
    "ORCHARD_EMR_APPLICATION": "00f1",
    "ORCHARD_EMR_ROLE": "arn:aws:iam::123456789012:role/jobs",
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("orchard.deployment.deployed_package.destination_of", PackagePlace)
    return Settings.from_environment(VARIABLES | {"ORCHARD_WAREHOUSE": str(tmp_path)})


@pytest.fixture
def attempts(settings: Settings) -> Attempts:
    return Attempts(Warehouse.at(settings.warehouse), WORK)


def operator_of(settings: Settings, emr: Emr, monkeypatch: pytest.MonkeyPatch) -> StartEmrServerlessJob:
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert isinstance(operator, StartEmrServerlessJob)
    vars(emr).pop("start_job_run", None)  # a task has a client of its own
    monkeypatch.setattr(StartEmrServerlessJob, "_client", property(lambda self: emr))
    monkeypatch.setattr(StartEmrServerlessJob, "hook", property(lambda self: type("Hook", (), {"conn": emr})()))
    monkeypatch.setattr(EmrServerlessStartJobOperator, "persist_links", lambda self, context: None)
    return operator


def defer(settings: Settings, emr: Emr, monkeypatch: pytest.MonkeyPatch, context: TaskContext | None = None) -> TaskDeferred:
    operator = operator_of(settings, emr, monkeypatch)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context or TaskContext(PLANNED))
    return deferred.value


def test_what_is_sent_is_the_golden_request(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it goes over the wire; and the task's links lead to the job."""
    fixed = with_variables(
        settings, ORCHARD_WAREHOUSE="s3://lake/warehouse", ORCHARD_JOBS_ENVIRONMENT="s3://code/environment.tar.gz"
    )
    operator = launcher_for(fixed).operator(JobRequest("reduce", plan_task="plan_batch"))
    assert isinstance(operator, StartEmrServerlessJob)
    assert (operator.pool, operator.deferrable) == ("spark", True)
    answers: dict[str, dict[str, Any]] = {
        "GET /applications/00f1": {"application": {"state": "STARTED"}},
        "POST /applications/00f1/jobruns": {"jobRunId": "job-1"},
    }
    sent = aws_wire.record(lambda name, body: answers[name], monkeypatch)
    aws_wire.without_attempts(monkeypatch)
    context = TaskContext(PLANNED)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    golden = ROOT / "tests" / "golden" / "emr_serverless_start_job_run.json"
    assert [body for name, body in sent if name.startswith("POST")] == [json.loads(golden.read_text())]
    assert deferred.value.trigger.serialize()[1]["job_id"] == "job-1"
    assert context.pushed["emr_serverless_dashboard"]["job_run_id"] == "job-1"


def test_emr_ends_a_job_before_airflow_gives_it_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = operator_of(settings, Emr("RUNNING"), monkeypatch)
    assert operator.waiter_delay * operator.waiter_max_attempts > operator.config["executionTimeoutMinutes"] * 60


def test_every_state_that_emr_has_is_known_to_be_an_end_or_not(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    states = aws_wire.enum_of("emr-serverless", "JobRunState")
    seen = {}
    for state in states:
        emr = Emr(state)
        emr.states["job-1"] = state
        seen[state] = operator_of(settings, emr, monkeypatch).job_state({"application_id": "00f1", "job_id": "job-1"})
    assert {state for state in states if seen[state].is_over} == {"SUCCESS", "FAILED", "CANCELLED"}
    assert {state for state in states if seen[state].is_ending} == {"CANCELLING"}


@pytest.mark.parametrize("state", ["RUNNING", "QUEUED", "A_NEW_WORD"])
def test_a_retry_reaches_the_job_that_runs(state: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    emr = Emr(state)
    first, second = (defer(settings, emr, monkeypatch) for _ in range(2))
    assert first.trigger.serialize() == second.trigger.serialize()
    assert first.trigger.serialize()[1]["job_id"] == "job-1"
    assert len(emr.requests) == 1


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_retry_reaches_it_also_when_the_settings_have_changed(
    is_recorded: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMR refuses the token with another request, whether or not the first try lived to record its job."""
    emr = Emr("RUNNING")
    with monkeypatch.context() as patched:
        if not is_recorded:
            patched.setattr(Attempts, "record_start", lambda self, attempt, job: None)
        defer(settings, emr, monkeypatch)
    again = defer(with_variables(settings, ORCHARD_JOB_MINUTES=7), emr, monkeypatch)
    assert again.trigger.serialize()[1]["job_id"] == "job-1"
    emr.states["job-1"] = "FAILED"
    assert defer(with_variables(settings, ORCHARD_JOB_MINUTES=8), emr, monkeypatch).trigger.serialize()[1]["job_id"] == "job-2"


def test_a_conflict_of_another_kind_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    emr = Emr("RUNNING")
    defer(settings, emr, monkeypatch)
    emr.requests[0]["name"] = "another"
    monkeypatch.setattr(Attempts, "started", lambda self, attempt: None)
    with pytest.raises(ClientError, match="ConflictException"):
        operator_of(settings, emr, monkeypatch).execute(TaskContext(PLANNED))


def test_another_warehouse_has_other_tokens(attempts: Attempts, tmp_path: Path) -> None:
    other = Attempts(Warehouse.at(str(tmp_path / "other")), WORK)
    assert len({attempts.token(1), attempts.token(2), other.token(1)}) == 3


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "SUCCESS", "GONE"])
def test_a_job_that_ended_unseen_is_not_replayed(
    state: str, settings: Settings, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that ended well, since its report is not there."""
    emr = Emr("RUNNING")
    defer(settings, emr, monkeypatch)
    emr.states = {} if state == "GONE" else {"job-1": state}
    again = defer(settings, emr, monkeypatch)
    assert again.trigger.serialize()[1]["job_id"] == "job-2"
    assert attempts.current == 2


def test_a_finished_report_starts_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    emr = Emr("RUNNING")
    Warehouse.at(settings.warehouse).create(report_path(WORK), b"{}")
    with pytest.raises(AirflowSkipException, match="reusing its report"):
        operator_of(settings, emr, monkeypatch).execute(TaskContext(PLANNED))
    assert emr.requests == []


def test_a_failed_job_tells_its_reason_and_its_drivers_last_line(
    settings: Settings, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    emr, context = Emr("RUNNING"), TaskContext(PLANNED)
    defer(settings, emr, monkeypatch, context)
    emr.states["job-1"] = "FAILED"
    read: list[str] = []

    def get_key(self: Any, key: str, bucket: str) -> Any:
        read.append(f"s3://{bucket}/{key}")
        text = b"Traceback\nJobError: no memory\n\n" if key.endswith("stdout.gz") else b"WARN of Spark\n"
        body = type("Body", (), {"read": lambda self: gzip.compress(text)})()
        return type("Object", (), {"get": lambda self: {"Body": body}})()

    monkeypatch.setattr("orchard.launchers.resumable_job.S3Hook.get_key", get_key)
    event = {"status": "error", "message": "Serverless Job failed", "job_details": {}}
    with pytest.raises(JobError, match="job job-1 of 00f1 is FAILED: details of job-1: JobError: no memory"):
        operator_of(settings, emr, monkeypatch).execute_complete(context, event)
    folder = "s3://code/logs/applications/00f1/jobs/job-1/SPARK_DRIVER"
    assert read == [f"{folder}/stderr.gz", f"{folder}/stdout.gz"]
    assert "job: WARN of Spark" in caplog.text
    assert "job: Traceback" in caplog.text
    assert attempts.current == 2
    assert defer(settings, emr, monkeypatch).trigger.serialize()[1]["job_id"] == "job-2"


def test_a_job_that_airflow_gives_up_is_cancelled(
    settings: Settings, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emr, context = Emr("RUNNING"), TaskContext(PLANNED)
    defer(settings, emr, monkeypatch, context)
    monkeypatch.setattr(StartEmrServerlessJob, "last_lines", lambda self, job: [])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert attempts.current == 1
        emr.states["job-1"] = ("CANCELLING", "CANCELLED")[len(slept) - 1]

    monkeypatch.setattr("orchard.launchers.resumable_job.time.sleep", sleep)
    event = {"status": "error", "message": "Waiter error: max attempts reached"}
    with pytest.raises(JobError, match="is CANCELLED"):
        operator_of(settings, emr, monkeypatch).execute_complete(context, event)
    assert emr.cancelled == ["job-1"]
    assert attempts.current == 2


def test_a_job_that_does_not_end_is_told_and_waited_for_by_the_next_try(
    settings: Settings, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emr, context = Emr("RUNNING"), TaskContext(PLANNED)
    defer(settings, emr, monkeypatch, context)
    monkeypatch.setattr("orchard.launchers.resumable_job._ENDING_SECONDS", 0.1)
    monkeypatch.setattr("orchard.launchers.resumable_job._ENDING_POLL_SECONDS", 0.05)
    event = {"status": "error", "message": "Waiter error: max attempts reached"}
    with pytest.raises(JobError, match="is RUNNING and has not stopped"):
        operator_of(settings, emr, monkeypatch).execute_complete(context, event)
    emr.states["job-1"] = "CANCELLING"
    with pytest.raises(JobError, match="is CANCELLING and has not stopped"):
        operator_of(settings, emr, monkeypatch).execute(context)
    assert attempts.current == 1


@pytest.mark.parametrize("code", ["InternalServerException", "ExpiredTokenException", "AccessDeniedException"])
def test_a_job_that_emr_does_not_tell_about_goes_on_and_is_reached_again(
    code: str, settings: Settings, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emr, context = Emr("RUNNING"), TaskContext(PLANNED)
    defer(settings, emr, monkeypatch, context)
    event = {"status": "error", "message": f"Serverless Job failed: An error occurred ({code})"}
    with pytest.raises(JobError, match=rf"\(last state RUNNING\): .*{code}"):
        operator_of(settings, emr, monkeypatch).execute_complete(context, event)
    assert (emr.cancelled, attempts.current) == ([], 1)
    assert defer(settings, emr, monkeypatch).trigger.serialize()[1]["job_id"] == "job-1"


def test_a_failed_job_tells_its_reason_though_its_log_cannot_be_read(
    settings: Settings, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emr, context = Emr("RUNNING"), TaskContext(PLANNED)
    defer(settings, emr, monkeypatch, context)
    emr.states["job-1"] = "FAILED"
    for cause in (EndpointConnectionError(endpoint_url="http://s3"), ValueError("no such stream")):

        def get_key(self: Any, key: str, bucket: str, cause: Exception = cause) -> Any:
            raise cause

        monkeypatch.setattr("orchard.launchers.resumable_job.S3Hook.get_key", get_key)
        with pytest.raises(JobError, match="is FAILED: details of job-1: its log does not exist"):
            operator_of(settings, emr, monkeypatch).execute_complete(context, {"status": "error", "message": "failed"})


@pytest.mark.parametrize("variable", ["ORCHARD_JOBS_URI", "ORCHARD_EMR_APPLICATION", "ORCHARD_EMR_ROLE"])
def test_a_setting_that_the_target_needs_is_named(variable: str, tmp_path: Path) -> None:
    variables = {name: value for name, value in VARIABLES.items() if name != variable}
    with pytest.raises(ConfigurationError, match=f"{variable} is not set: ORCHARD_TARGET=emr_serverless needs it"):
        launcher_for(Settings.from_environment(variables | {"ORCHARD_WAREHOUSE": str(tmp_path)}))


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ORCHARD_ENGINE", "cuda", "ORCHARD_ENGINE='cuda': EMR Serverless has no GPU"),
        ("ORCHARD_EMR_ROLE", "jobs", "ORCHARD_EMR_ROLE='jobs': not a role ARN"),
        ("ORCHARD_EMR_APPLICATION", " ", "ORCHARD_EMR_APPLICATION=' ': not an application id"),
        ("ORCHARD_EXECUTOR_CORES", "3", "ORCHARD_EXECUTOR_CORES=3: a worker of EMR Serverless has 1, 2, 4, 8, 16 cores"),
        ("ORCHARD_EXECUTOR_CORES", "1", "ORCHARD_EXECUTOR_MEMORY='12g': .* above the 8 GB of a worker of 1 cores"),
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
    monkeypatch.setitem(PackagePlace.files, ZIP, b"another")
    with pytest.raises(ConfigurationError, match=f"{ZIP} does not match its manifest"):
        launcher_for(tensorflow).prepare(tensorflow.backbone)


def test_a_batch_above_the_limit_on_spend_is_refused(settings: Settings) -> None:
    backbone = backbone_named("efficientnet_lite0")
    head = ManifestHead("2026-01-01", backbone, 1, None, 10, 10**9, 0, {"compute": 10**9}, (), (), ())
    words = r"estimated at 4166\.7 executor-hours; the limit is ORCHARD_MAX_EXECUTOR_HOURS=100"
    with pytest.raises(ConfigurationError, match=words):
        check_cost(head, settings)
    assert "4166.67 executor-hours" in check_cost(head, with_variables(settings, ORCHARD_TARGET="local"))
    assert "0.00" in check_cost(replace(head, actions={"keep": 5}), settings)
