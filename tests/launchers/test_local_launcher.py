"""The launcher `local`: what it submits, what it skips, and what it refuses before anything is submitted."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from orchard.launchers import launcher_for
from orchard.launchers.request import JobRequest, job_argv, planned_work, skip_without_work
from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.local_spark import local_spark_conf
from orchard_jobs.storage import Warehouse
from support.changed_settings import with_variables
from support.emr_stand_in import JOBS
from support.spark_runs import exported
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


def test_a_job_is_told_when_it_is_stalled_unless_that_is_the_default(settings: Settings) -> None:
    request = JobRequest("reduce", plan_task="plan_batch")
    patient = job_argv(request, with_variables(settings, ORCHARD_STALL_MINUTES="90.5"))
    assert patient[patient.index("--stall-minutes") + 1] == "90.5"
    assert "--stall-minutes" not in job_argv(request, settings)


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
    with pytest.raises(AirflowSkipException, match="there is no model yet"):
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
    Warehouse.at(cuda.warehouse).create(backbone_path(cuda.backbone.id), exported(settings.backbone))
    with pytest.raises(ConfigurationError, match="cannot be loaded: ConfigurationError: engine cuda: .* without a GPU"):
        launcher_for(cuda).prepare(cuda.backbone)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ORCHARD_TARGET='mars': must be one of local, emr_serverless"):
        Settings.from_environment({"ORCHARD_WAREHOUSE": str(tmp_path), "ORCHARD_TARGET": "mars"})


# Stands for a program that is started: it keeps its arguments and its environment, one a line.
KEEP = """#!/bin/sh
printf '%s\\n' "$@" >"$0.arguments"
env >"$0.environment"
"""
SECRETS = {
    "AIRFLOW__CORE__FERNET_KEY": "s3cret",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:s3cret@db/airflow",
    "AIRFLOW_CONN_OTHER": "http://u:s3cret@x",
    "ORCHARD_NOTIFIER_ARGUMENTS": '{"password": "s3cret"}',
    "ADMIN_PASSWORD": "s3cret",
}
NEEDED = {"JAVA_HOME": "/opt/java", "SPARK_CONF_DIR": "/etc/spark", "https_proxy": "http://proxy", "ORCHARD_STACK_ID": "7"}
REMOTE = "sc://spark:15002/;token=t0ken"


def keeping(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(KEEP)
    path.chmod(0o755)
    return path


def kept(program: Path, what: str) -> list[str]:
    return Path(f"{program}.{what}").read_text().splitlines()


@pytest.fixture
def parent() -> Iterator[None]:
    """The environment of a task's process."""
    with patch.dict(os.environ, SECRETS | NEEDED):
        yield


def execute(operator: BaseOperator, planned: PlannedJobs = PLANNED, *, is_checked: bool = True) -> None:
    """Run an operator as Airflow does: rendered, prepared, executed."""
    context: Any = TaskContext(planned, operator)
    operator.render_template_fields(context)
    if is_checked:
        assert operator._pre_execute_hook is not None
        operator._pre_execute_hook(context)
    operator.execute(context)


def check_environment(lines: list[str]) -> None:
    assert not [line for line in lines if "s3cret" in line or line.startswith(("AIRFLOW__", "AIRFLOW_CONN_"))]
    assert {f"{name}={value}" for name, value in NEEDED.items()} <= set(lines)
    assert f"ORCHARD_OWNER_PID={os.getpid()}" in lines


def test_a_submitted_job_gets_no_secret_of_airflow(settings: Settings, tmp_path: Path, parent: None) -> None:
    program, wrapper = keeping(tmp_path / "bin" / "spark-submit"), tmp_path / "bin" / "orchard-spark-submit"
    lines = [f"#!{sys.executable}", "import sys", f"sys.executable = {str(tmp_path / 'bin' / 'python')!r}"]
    wrapper.write_text("\n".join([*lines, "from orchard_jobs.entry.spark_submit import main", "main()"]))
    wrapper.chmod(0o755)
    settings = with_variables(settings, ORCHARD_JOBS_PYTHON=str(tmp_path / "bin" / "python"))
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert type(operator) is SparkSubmitOperator
    execute(operator)
    hook: Any = operator._hook
    hook._submit_sp.stdout.close()
    check_environment(kept(program, "environment"))
    assert kept(program, "arguments")[-2:] == ["--input-digest", "d" * 64]


def connected(settings: Settings, program: Path, monkeypatch: pytest.MonkeyPatch) -> BashOperator:
    """Return the operator of a job under Spark Connect, whose client is a program."""
    monkeypatch.setattr("orchard.launchers.local.sys.executable", str(program))
    settings = with_variables(settings, ORCHARD_SPARK_REMOTE=REMOTE)
    operator = launcher_for(settings).operator(JobRequest("featurize", plan_task="plan_batch"))
    assert type(operator) is BashOperator
    return operator


def test_with_a_spark_connect_server_this_python_is_its_client(
    settings: Settings, tmp_path: Path, parent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = keeping(tmp_path / "bin" / "client")
    operator = connected(settings, program, monkeypatch)
    assert (operator.task_id, operator.pool) == ("featurize", "spark")
    execute(operator)
    words = ["featurize", "--warehouse", settings.warehouse, "--source", "fetch", "--input-digest", "d" * 64]
    assert kept(program, "arguments") == ["-m", "orchard_jobs.cli", *words]
    check_environment(kept(program, "environment"))
    assert f"SPARK_REMOTE={REMOTE}" in kept(program, "environment")


def test_bash_takes_a_value_from_xcom_for_one_word(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = keeping(tmp_path / "bin" / "client")
    operator = connected(settings, program, monkeypatch)
    hostile = f'x\'; "$(touch {tmp_path}/run)" `id` #'
    execute(operator, replace(PLANNED, input_digest=hostile), is_checked=False)
    assert kept(program, "arguments")[-1] == hostile
    assert not (tmp_path / "run").exists()


def test_no_rendered_field_holds_a_spark_connect_servers_token(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = connected(settings, tmp_path / "client", monkeypatch)
    fields = {name: getattr(operator, name) for name in operator.template_fields}
    assert "t0ken" not in str(fields)
    assert "{{" not in str(operator.bash_command)
    assert operator.env == {"ORCHARD_INPUT_DIGEST": "{{ ti.xcom_pull(task_ids='plan_batch')['input_digest'] }}"}


@pytest.mark.parametrize("digest", ["d" * 63, "D" * 64, "g" * 64, "d" * 64 + "\n", "$(id)", "../" + "d" * 61, "", None])
@pytest.mark.parametrize("take", [lambda *given: skip_without_work("/w", *given), planned_work])
def test_an_input_that_no_digest_names_is_refused(take: Callable[..., object], digest: Any) -> None:
    context = TaskContext(replace(PLANNED, input_digest=digest))
    with pytest.raises(AirflowFailException, match="not 64 hex digits: nothing is submitted"):
        take(JobRequest("featurize", plan_task="plan_batch"), context)


def test_a_spark_connect_server_needs_a_deployed_backbone(settings: Settings) -> None:
    remote = with_variables(settings, ORCHARD_SPARK_REMOTE="sc://spark:15002")
    with pytest.raises(ConfigurationError, match="orchard deploy"):
        launcher_for(remote).prepare(remote.backbone)
    Warehouse.at(remote.warehouse).create(backbone_path(remote.backbone.id), b"network")
    launcher_for(remote).prepare(remote.backbone)


def test_a_spark_connect_server_is_named_with_its_scheme() -> None:
    with pytest.raises(ConfigurationError, match="not of the form sc://host:port"):
        Settings.from_environment({"ORCHARD_WAREHOUSE": "/tmp/w", "ORCHARD_SPARK_REMOTE": "spark:15002"})
