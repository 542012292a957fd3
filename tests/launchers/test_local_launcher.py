"""The launcher `local`: what it submits, what it skips, and what it refuses before anything is submitted."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk.exceptions import AirflowSkipException
from orchard.launchers import launcher_for
from orchard.launchers.request import JobRequest, skip_without_work
from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.local_spark import local_spark_conf
from orchard_jobs.storage import Warehouse
from support.emr_stand_in import JOBS
from support.settings import with_variables
from support.task_context import TaskContext

PLANNED = PlannedJobs("file:///x/head.json", "d" * 64, "backbone-1", ("featurize",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"ORCHARD_WAREHOUSE": str(tmp_path), "ORCHARD_JOBS_PYTHON": sys.executable})


def test_a_job_is_a_stock_operator_in_the_pool(settings: Settings) -> None:
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert type(operator) is SparkSubmitOperator
    assert (operator.task_id, operator.pool) == ("featurize", "spark")
    digest = "{{ ti.xcom_pull(task_ids='plan_batch')['input_digest'] }}"
    words = ["featurize", "--warehouse", settings.warehouse, "--source", "fetch", "--input-digest", digest]
    assert operator.application_args == words
    assert Path(operator.application).read_text().count("\n") <= 8
    assert operator.conf == local_spark_conf(settings.local.class_archive)


def test_no_secret_is_in_a_templated_field(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert "top-secret" not in str([getattr(operator, name, None) for name in operator.template_fields])


def test_a_finished_report_is_reused(settings: Settings) -> None:
    request = JobRequest("featurize", plan_task="plan_batch")
    skip_without_work(settings.warehouse, request, TaskContext(PLANNED))
    Warehouse.at(settings.warehouse).create(report_path(PLANNED.work("featurize")), b"{}")
    with pytest.raises(AirflowSkipException, match="reusing its report"):
        skip_without_work(settings.warehouse, request, TaskContext(PLANNED))


def test_a_stage_without_work_is_skipped(settings: Settings) -> None:
    with pytest.raises(AirflowSkipException, match="no PCA model yet"):
        skip_without_work(settings.warehouse, JobRequest("reduce", plan_task="plan_batch"), TaskContext(PLANNED))


def test_an_exported_network_is_not_prepared_again(settings: Settings) -> None:
    Warehouse.at(settings.warehouse).create(backbone_path(settings.backbone.id), b"onnx")
    launcher_for(with_variables(settings, ORCHARD_JOBS_PYTHON="/does/not/exist")).prepare(settings.backbone)


def test_a_jobs_environment_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"ORCHARD_JOBS_PYTHON='/does/not/exist'"):
        launcher_for(with_variables(settings, ORCHARD_JOBS_PYTHON="/does/not/exist")).prepare(settings.backbone)


def test_weights_that_cannot_be_had_fail_before_a_job_is_submitted(settings: Settings, tmp_path: Path) -> None:
    wrong = replace(settings, backbone=backbone_named("resnet50", "onnx", str(tmp_path / "none.h5"), "0" * 64))
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        launcher_for(wrong).prepare(wrong.backbone)


def test_a_gpu_that_is_not_there_fails_before_a_job_is_submitted(settings: Settings) -> None:
    cuda = replace(settings, backbone=backbone_named("efficientnet_lite0", "cuda"))
    cuda = with_variables(cuda, ORCHARD_JOBS_PYTHON=str(JOBS / "python"))
    (exported,) = (JOBS.parent / "share" / "orchard" / "networks").glob("efficientnet_lite0-*.onnx")
    Warehouse.at(cuda.warehouse).create(backbone_path(cuda.backbone.id), exported.read_bytes())
    with pytest.raises(ConfigurationError, match="cannot be loaded: ConfigurationError: engine cuda: .* without a GPU"):
        launcher_for(cuda).prepare(cuda.backbone)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ORCHARD_TARGET='mars': must be one of local, emr_serverless"):
        Settings.from_environment({"ORCHARD_WAREHOUSE": str(tmp_path), "ORCHARD_TARGET": "mars"})


def test_with_a_spark_connect_server_this_python_is_its_client(settings: Settings) -> None:
    remote = with_variables(settings, ORCHARD_SPARK_REMOTE="sc://spark:15002")
    operator = launcher_for(remote).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert type(operator) is BashOperator
    assert (operator.task_id, operator.pool, operator.append_env) == ("featurize", "spark", True)
    assert operator.env == {"SPARK_REMOTE": "sc://spark:15002"}
    command = operator.bash_command
    assert isinstance(command, str)
    assert shlex.split(command)[:5] == ["exec", sys.executable, "-m", "orchard_jobs.cli", "featurize"]
    assert command.endswith("--input-digest {{ ti.xcom_pull(task_ids='plan_batch')['input_digest'] }}")


def test_a_spark_connect_server_needs_a_deployed_backbone(settings: Settings) -> None:
    remote = with_variables(settings, ORCHARD_SPARK_REMOTE="sc://spark:15002")
    with pytest.raises(ConfigurationError, match="orchard deploy"):
        launcher_for(remote).prepare(remote.backbone)
    Warehouse.at(remote.warehouse).create(backbone_path(remote.backbone.id), b"network")
    launcher_for(remote).prepare(remote.backbone)


def test_a_spark_connect_server_is_named_with_its_scheme() -> None:
    with pytest.raises(ConfigurationError, match="not of the form sc://host:port"):
        Settings.from_environment({"ORCHARD_WAREHOUSE": "/tmp/w", "ORCHARD_SPARK_REMOTE": "spark:15002"})
