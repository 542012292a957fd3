"""The whole DAG with the targets of AWS and Databricks, on stand-ins that run what is submitted."""

import gzip
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from orchard_sandbox.s3.landing import aws_client
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.samples import image_bytes
from orchard_sandbox.stack.stack_paths import Layout
from orchard_sandbox.stack.stack_state import read_state
from orchard_sandbox.stack.supervisor import AIRFLOW
from support.generated_history import TOLD, clean_run, published_rows
from support.repository import SHARED
from support.stack import Stack, bare_client, run_printed_program, wait_for_silence, write

pytestmark = pytest.mark.end_to_end
GOOD, CLEARED, KILLED, IDLE = "2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"
ENDED = {"SUCCESS", "FAILED", "CANCELLED"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    base = tmp_path_factory.mktemp("emr")
    stack = Stack(base / "home", base / "images", {"TARGET": "emr_serverless", "ORCHARD_RETRIES": "1"}, "support.steered_stack")
    fruits = sorted((SHARED / "fruits360").rglob("*.jpg"))[:: 9660 // 40]
    for position, day in enumerate((GOOD, CLEARED, KILLED, IDLE)):
        contents = [path.read_bytes() for path in fruits[position::4]]
        for number, content in enumerate(contents or [image_bytes("Kiwi", 20 * position + n) for n in range(10)]):
            write(stack.images / day / f"label {number % 3}" / f"{number}.jpg", content)
        write(stack.images / day / "odd" / "broken # 1.jpg", f"no image of {day}".encode())
    try:
        yield stack
    finally:
        stack.end()


class Emr:
    """The stand-in's job runs, and its faults."""

    def __init__(self, stack: Stack) -> None:
        self.address = read_state(Layout(stack.home)).s3_address
        self.client = aws_client("emr-serverless", stack.aws_variables)
        self.application = self.client.list_applications()["applications"][0]["id"]

    def jobs(self) -> list[dict[str, Any]]:
        found = self.client.list_job_runs(applicationId=self.application)["jobRuns"]
        runs = [self.client.get_job_run(applicationId=self.application, jobRunId=run["id"])["jobRun"] for run in found]
        return sorted(runs, key=lambda run: run["createdAt"])

    def since(self, moment: datetime) -> list[dict[str, Any]]:
        return [run for run in self.jobs() if run["createdAt"] >= moment]

    def fault(self, kind: str, times: int, seconds: float = 0) -> None:
        body = {"kind": kind, "operation": "*", "times": times, "seconds": seconds}
        requests.post(f"{self.address}/_orchard/faults", json=body, timeout=30).raise_for_status()

    def no_faults(self) -> None:
        requests.delete(f"{self.address}/_orchard/faults", timeout=30).raise_for_status()


def never_two_at_once(jobs: list[dict[str, Any]]) -> bool:
    spans = sorted((run["createdAt"], run["endedAt"]) for run in jobs)
    return all(ended <= created for (_, ended), (created, _) in zip(spans, spans[1:], strict=False))


def rows_of(stack: Stack, table: str, day: str) -> pl.DataFrame:
    return stack.table(table).filter(pl.col("batch_id") == day)


def keys_of(s3: Any, bucket: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def check_package(stack: Stack, element: str) -> None:
    """Hold that the jobs ran the code that was deployed, though the stand-in's Python has the checkout's, too."""
    s3 = bare_client(stack)
    logs = [
        gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).decode()
        for bucket in (found["Name"] for found in s3.list_buckets()["Buckets"])
        for key in keys_of(s3, bucket)
        if element in key and key.endswith("/stdout.gz")
    ]
    assert logs
    assert all("orchard_jobs.zip/orchard_jobs, Python" in text for text in logs)


def start(stack: Stack, api: AirflowApi, day: str) -> str:
    """Upload a day without its run, and start the run by hand, with no event's run beside it."""
    s3 = bare_client(stack)
    for path in sorted((stack.images / day).rglob("*.jpg")):
        s3.put_object(Bucket="landing", Key=f"images/{path.relative_to(stack.images)}", Body=path.read_bytes())
    return api.start_run("image_batches", day, {"quiet_seconds": 0})


@pytest.fixture(scope="module")
def clean(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of one clean run over the first batch, without Airflow."""
    done = stack.run(GOOD)
    assert done.returncode == 0, done.stdout + done.stderr
    contents = {f"images/{path.relative_to(stack.images)}": path.read_bytes() for path in (stack.images / GOOD).rglob("*.jpg")}
    warehouse = tmp_path_factory.mktemp("clean") / "warehouse"
    clean_run(warehouse, stack.aws_variables, contents, (GOOD,))
    return warehouse


def test_a_batch_is_that_of_a_clean_run_without_airflow(stack: Stack, clean: Path) -> None:
    for table, names in TOLD.items():
        expected = published_rows(str(clean / table), (GOOD,), names)
        assert expected
        assert published_rows(str(stack.home / "warehouse" / table), (GOOD,), names) == expected
    (run,) = rows_of(stack, "runs", GOOD).to_dicts()
    assert run["target"] == "emr_serverless"
    for job in Emr(stack).jobs():
        assert job["state"] == "SUCCESS"
        assert job["tags"]["orchard"] in ("featurize", "reduce", "project", "classify")
    check_package(stack, "/SPARK_DRIVER/")


def test_a_cleared_task_never_has_two_jobs(stack: Stack) -> None:
    emr, api, begin = Emr(stack), stack.api, datetime.now().astimezone()
    run_id = start(stack, api, CLEARED)
    while not any(run["state"] == "RUNNING" for run in emr.since(begin)):
        time.sleep(0.5)
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["featurize"], "only_failed": False, "only_running": True}
    api.call("POST", "dags/image_batches/clearTaskInstances", body | {"include_downstream": True, "reset_dag_runs": True})
    wait_for_silence(api, "image_arrivals", "image_batches_on_arrival", "image_batches", "pca_model", "classifier_model")
    jobs = emr.since(begin)
    assert {run["state"] for run in jobs} <= ENDED
    featurize = [run for run in jobs if run["tags"]["orchard"] == "featurize"]
    assert never_two_at_once(featurize)
    assert [run["state"] for run in featurize].count("SUCCESS") == 1
    assert rows_of(stack, "features", CLEARED).height == 10
    assert rows_of(stack, "quarantine", CLEARED).height == 1


def test_with_execution_switched_off_the_dag_fails(stack: Stack) -> None:
    emr = Emr(stack)
    # Long enough for Airflow: of a task that is resumed while its deferral still ends it may say that it failed, and not why.
    emr.fault("no_execution", 0, seconds=4)
    try:
        done = stack.run(IDLE)
    finally:
        emr.no_faults()
    assert done.returncode == 1
    assert "execution is switched off" in done.stderr
    for table in ("features", "quarantine", "runs"):
        assert rows_of(stack, table, IDLE).height == 0


class Lake:
    """A warehouse of its own on S3, with the exported backbone."""

    def __init__(self, stack: Stack, name: str) -> None:
        s3 = bare_client(stack)
        s3.create_bucket(Bucket="lake")
        self.uri = f"s3://lake/{name}"
        backbone = next((stack.home / "warehouse").rglob("*.onnx"))
        s3.upload_file(str(backbone), "lake", f"{name}/{backbone.relative_to(stack.home / 'warehouse')}")
        self.options = stack.aws_variables | {"AWS_ALLOW_HTTP": "true"}

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_delta(f"{self.uri}/{name}", storage_options=self.options)


def test_a_job_out_of_memory_is_retried_once_and_its_end_is_told(stack: Stack) -> None:
    """In a warehouse on S3."""
    emr, lake, begin = Emr(stack), Lake(stack, "emr_serverless"), datetime.now().astimezone()
    emr.fault("out_of_memory", 1, seconds=1)
    done = stack.run(KILLED, WAREHOUSE=lake.uri)
    assert done.returncode == 0, done.stdout + done.stderr
    featurize = [run for run in emr.since(begin) if run["tags"]["orchard"] == "featurize"]
    assert [run["state"] for run in featurize] == ["FAILED", "SUCCESS"]
    assert never_two_at_once(featurize)
    assert lake.table("features").height == 10
    s3 = bare_client(stack)
    ends = [key for key in keys_of(s3, "lake") if key.endswith("/ended.json")]
    assert any(b"137" in s3.get_object(Bucket="lake", Key=key)["Body"].read() for key in ends)


@pytest.mark.parametrize("target", ["emr", "databricks"])
def test_the_other_targets_give_the_same_rows_in_a_warehouse_on_s3(target: str, stack: Stack, clean: Path) -> None:
    """On Databricks the images come through Spark, to workers that know no store."""
    lake = Lake(stack, target)
    before = read_state(Layout(stack.home)).processes
    done = stack.run(GOOD, TARGET=target, WAREHOUSE=lake.uri)
    assert done.returncode == 0, done.stdout + done.stderr
    after = read_state(Layout(stack.home)).processes
    # The pages of the api-server read the warehouse. A connection of its own is what Databricks adds to the triggerer's settings.
    kept = () if target == "databricks" else ("triggerer",)
    assert [name for name in AIRFLOW if after[name] == before[name]] == list(kept)
    for table, names in TOLD.items():
        found = published_rows(f"{lake.uri}/{table}", (GOOD,), names, lake.options)
        assert found == published_rows(str(clean / table), (GOOD,), names)
    (run,) = lake.table("runs").to_dicts()
    good = rows_of(stack, "features", GOOD).height
    assert (run["target"], run["network_runs"]) == (target, good)
    assert lake.table("pca_features").height == good
    assert "image_uri" in run_printed_program(done.stdout)
    if target == "emr":
        check_package(stack, "/steps/")
