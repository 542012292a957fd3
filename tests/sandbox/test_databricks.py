"""The Databricks stand-in, on the wire and through databricks-sdk: what it says of a run is what became of its processes."""

import base64
import io
import json
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from databricks.sdk.errors import BadRequest, NotFound, OperationFailed, ResourceAlreadyExists
from databricks.sdk.service import jobs
from databricks.sdk.service.workspace import ExportFormat, ImportFormat, Language, ObjectInfo, ObjectType
from orchard_sandbox.databricks.task_compute import is_isolated
from orchard_sandbox.s3.objects import ObjectFolder, StoredObject
from support.databricks_stand_in import (
    TOKEN,
    VOLUME,
    WHEEL,
    Server,
    Task,
    check_known,
    make_wheel,
    request_of,
    serving,
)
from support.emr_stand_in import wait_until

CLUSTER = {"spark_version": "17.3.x-scala2.13", "node_type_id": "m6i.xlarge", "num_workers": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("databricks")
    with serving(folder / "state", folder / "objects", "--without-spark") as server:
        yield server


@pytest.fixture(autouse=True)
def _no_faults_left(server: Server) -> Iterator[None]:
    yield
    server.no_faults()


def on(where: dict[str, Any], function: str = "told") -> dict[str, Any]:
    """Return a request for a cluster."""
    request = request_of(function)
    (task,) = request["tasks"]
    task.pop("environment_key")
    return request | {"tasks": [task | where | {"libraries": [{"whl": WHEEL}]}]}


def test_a_run_gets_its_parameters_and_an_environment_of_its_own(server: Server) -> None:
    task = Task(server, "fruit-told", "a b", "--c=d")
    run = task.wait()
    assert (run["state"]["result_state"], task.states) == ("SUCCESS", ["PENDING", "RUNNING", "TERMINATED"])
    output = task.output()
    assert "error" not in output
    told = json.loads(output["logs"].splitlines()[0])
    assert told["arguments"] == ["fruit-told", "a b", "--c=d"]
    assert str(server.folder / "environments") in told["python"]
    assert "leaked" not in told["environment"].values()
    assert "to the other stream" in output["logs"]
    page = requests.get(run["run_page_url"], timeout=10).text
    assert "SUCCESS" in page
    assert "to the other stream" in page
    assert run["start_time"] < run["end_time"] == run["tasks"][0]["end_time"]


def test_the_sdks_own_waiter_ends_and_knows_all_that_it_reads(server: Server) -> None:
    task = jobs.SubmitTask.from_dict(request_of("told")["tasks"][0])
    environments = [jobs.JobEnvironment.from_dict(one) for one in request_of("told")["environments"]]
    run = server.client.jobs.submit(tasks=[task], environments=environments).result(timeout=timedelta(seconds=60))
    assert run.state is not None
    assert run.state.result_state == jobs.RunResultState.SUCCESS


def test_serverless_compute_has_no_log_in_but_a_service_credential(server: Server) -> None:
    environments = request_of("credential")["environments"]
    environments[0]["spec"]["dependencies"].append("boto3")
    task = Task(server, "credential", environments=environments)
    assert task.result() == "SUCCESS", task.output()
    assert json.loads(task.output()["logs"].splitlines()[0])[:2] == ["orchard", "thing"]
    refused = Task(server, "other_credential")
    assert refused.result() == "FAILED"
    assert "UC_CREDENTIAL_NOT_FOUND: Service credential 'other' does not exist" in refused.output()["error"]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"environment_key": "jobs"}, True),
        ({"new_cluster": {"data_security_mode": "USER_ISOLATION"}}, True),
        ({"new_cluster": {"data_security_mode": "SINGLE_USER"}}, False),
        ({"existing_cluster_id": "0923-164208-meows279"}, False),
    ],
)
def test_workers_have_a_network_on_dedicated_clusters_alone(task: dict[str, Any], expected: bool) -> None:
    assert is_isolated(task) is expected


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("fail", "ValueError: no such fruit"),
        ("leave", "the driver wrote no error"),
        ("nowhere", "AttributeError: Python wheel with name fruit has no entry point nowhere"),
    ],
)
def test_a_task_that_fails_tells_its_last_error(function: str, error: str, server: Server) -> None:
    task = Task(server, function)
    assert task.result() == "FAILED"
    run, output = task.shown(), task.output()
    assert run["state"]["state_message"] == "Workload failed, see run output for details"
    assert output["error"] == error
    assert (function == "leave") or error in output["error_trace"]


def test_the_sdks_waiter_ends_for_a_lost_run_too(server: Server) -> None:
    task = Task(server, "sleep")
    task.wait("RUNNING")
    wait_until(lambda: len(task.processes()) >= 2)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not task.processes())
    server.start()
    run = task.shown()
    assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
    assert server.call("POST", "submit", task.request).json() == {"run_id": task.run_id}
    with pytest.raises(OperationFailed):
        server.client.jobs.wait_get_run_job_terminated_or_skipped(task.run_id, timeout=timedelta(seconds=20))


def test_a_token_stands_for_one_run_for_ever(server: Server) -> None:
    task = Task(server, "fail")
    assert server.call("POST", "submit", task.request).json() == {"run_id": task.run_id}
    task.wait()
    assert server.call("POST", "submit", task.request).json() == {"run_id": task.run_id}
    assert Task(server, "told").run_id != task.run_id


@pytest.mark.parametrize("function", ["sleep", "deaf"])
def test_a_cancelled_run_leaves_no_process(function: str, server: Server) -> None:
    task = Task(server, function)
    task.wait("RUNNING")
    wait_until(lambda: len(task.processes()) >= 2)
    task.cancel()
    run = task.wait()
    assert not task.processes()
    assert run["state"]["result_state"] == "CANCELED"
    assert task.states[-2:] == ["TERMINATING", "TERMINATED"]
    task.cancel()  # once more, which changes nothing
    assert task.shown()["end_time"] == run["end_time"]


def test_a_run_is_ended_by_its_time_out(server: Server) -> None:
    task = Task(server, "sleep", timeout_seconds="120")
    run = task.wait()
    assert run["state"]["result_state"] == "TIMEDOUT"
    assert not task.processes()


def test_a_wheel_or_package_that_is_not_there_fails_the_run(server: Server) -> None:
    for dependency, words in ((f"{VOLUME}/none.whl", "does not exist"), ("orchard-no-such-package==1", "installation failed")):
        request = request_of("told")
        request["environments"][0]["spec"]["dependencies"].append(dependency)
        task = Task(server, "told", environments=request["environments"])
        assert task.result() == "FAILED"
        assert words in task.output()["error"]


@pytest.mark.parametrize("where", [{"new_cluster": CLUSTER}, {"existing_cluster_id": "0923-164208-meows279"}])
def test_a_cluster_runs_a_task_with_libraries(where: dict[str, Any], server: Server) -> None:
    answer = server.call("POST", "submit", on(where))
    assert answer.status_code == 200, answer.text
    run = server.client.jobs.wait_get_run_job_terminated_or_skipped(answer.json()["run_id"], timeout=timedelta(seconds=60))
    assert run.state is not None
    assert run.state.result_state == jobs.RunResultState.SUCCESS


def changed(**changes: Any) -> dict[str, Any]:
    return request_of("told") | changes


@pytest.mark.parametrize(
    ("request_body", "words"),
    [
        (changed(max_concurrent_runs=1), "max_concurrent_runs"),
        (changed(tasks=[]), "exactly one task"),
        (changed(idempotency_token="x" * 65), "at most 64 characters"),
        (changed(environments=[]), "environment_key 'jobs' is not in environments"),
        (changed(tasks=[{"task_key": "a", "notebook_task": {"notebook_path": "/x"}}]), "notebook_task"),
        (on({"new_cluster": CLUSTER | {"spot": True}}), "does not know"),
        (on({"new_cluster": {"spark_version": "17.3.x-scala2.13", "num_workers": 1}}), "node_type_id"),
        (on({"new_cluster": CLUSTER | {"spark_version": "latest"}}), "Invalid spark version"),
        (on({"new_cluster": CLUSTER | {"autoscale": {"min_workers": 1, "max_workers": 2}}}), "one of num_workers and autoscale"),
        (on({"existing_cluster_id": "a", "new_cluster": CLUSTER}), "needs one of"),
    ],
)
def test_what_is_wrong_or_unknown_is_refused(request_body: dict[str, Any], words: str, server: Server) -> None:
    answer = server.call("POST", "submit", request_body)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert words in answer.json()["message"]


def test_calls_that_are_not_known_and_runs_that_are_not_there(server: Server) -> None:
    assert server.call("POST", "repair", {}).json()["error_code"] == "ENDPOINT_NOT_FOUND"
    assert server.call("GET", "get", {"run_id": 7}).json() == {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "Run 7 does not exist.",
    }
    url = f"{server.address}/api/2.2/jobs/runs/get?run_id=7"
    assert requests.get(url, headers={"Authorization": "Bearer other"}, timeout=10).status_code == 401
    submit, headers = f"{server.address}/api/2.2/jobs/runs/submit", {"Authorization": f"Bearer {TOKEN}"}
    assert requests.post(submit, data="{", headers=headers, timeout=10).json()["error_code"] == "MALFORMED_REQUEST"


def test_faults_of_answers_and_of_runs(server: Server) -> None:
    server.fault("throttle", operation="get", seconds=1)
    answer = server.call("GET", "get", run_id=7)
    told = (answer.status_code, answer.headers["Retry-After"], answer.json()["error_code"])
    assert told == (429, "1", "REQUEST_LIMIT_EXCEEDED")
    server.fault("error_after", operation="submit")
    body = request_of("told") | {"idempotency_token": "after"}
    assert server.call("POST", "submit", body).status_code == 500
    known = server.call("POST", "submit", body).json()["run_id"]
    assert known == max(int(path.name) for path in (server.folder / "runs").iterdir())  # the first call took effect
    server.client.jobs.wait_get_run_job_terminated_or_skipped(known, timeout=timedelta(seconds=60))  # it would suffer the next
    server.fault("drop_before", operation="get")
    with pytest.raises(requests.ConnectionError):
        server.call("GET", "get", run_id=known)
    for kind, error in (("kill_job", "signal 9"), ("out_of_memory", "out of memory"), ("no_execution", "nothing was run")):
        server.fault(kind, seconds=0.3)
        task = Task(server, "sleep")
        assert task.result() == "FAILED"
        assert error in task.output()["error"]


def test_the_files_of_a_volume(server: Server) -> None:
    files = server.client.files
    files.create_directory(f"{VOLUME}/a b")
    files.upload(f"{VOLUME}/a b/é.txt", io.BytesIO(b"text"))
    contents = files.download(f"{VOLUME}/a b/é.txt").contents
    assert contents is not None
    assert contents.read() == b"text"
    assert files.get_metadata(f"{VOLUME}/a b/é.txt").content_length == 4
    with pytest.raises(NotFound):
        files.get_metadata(f"{VOLUME}/none")
    with pytest.raises(NotFound, match="Volume of /Volumes/main/other/x/y does not exist"):
        files.upload("/Volumes/main/other/x/y", io.BytesIO(b"text"))


def test_a_workspace_keeps_plain_files(server: Server) -> None:
    files, folder = server.client.workspace, "/Workspace/Shared/a b"
    wheel = f"{folder}/fruit-1.0-py3-none-any.whl"
    with pytest.raises(NotFound, match="The parent folder"):
        files.upload(wheel, make_wheel(), format=ImportFormat.RAW)
    files.mkdirs(folder)
    files.upload(wheel, make_wheel(), format=ImportFormat.RAW)
    with pytest.raises(ResourceAlreadyExists, match="already exists"):
        files.upload(wheel, b"other", format=ImportFormat.AUTO)
    files.import_(wheel, content=base64.b64encode(make_wheel()).decode(), format=ImportFormat.RAW, overwrite=True)
    assert files.download(wheel, format=ExportFormat.RAW).read() == make_wheel()
    exported = files.export(wheel, format=ExportFormat.AUTO)
    assert (base64.b64decode(exported.content or ""), exported.file_type) == (make_wheel(), "whl")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    # The same object without the first element of its path.
    for path in (wheel, wheel.removeprefix("/Workspace")):
        query = {"path": path}
        told = requests.get(f"{server.address}/api/2.0/workspace/get-status", query, headers=headers, timeout=10).json()
        check_known(ObjectInfo, told)
        assert (told["object_type"], told["path"], told["size"]) == ("FILE", wheel, len(make_wheel()))
    assert [(one.path, one.object_type) for one in files.list("/Shared")] == [(folder, ObjectType.DIRECTORY)]
    with pytest.raises(BadRequest, match="is not empty"):
        files.delete(folder)
    files.delete(wheel)
    files.delete(folder)
    with pytest.raises(NotFound):
        files.get_status(wheel)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "/Shared/x.py", "format": ImportFormat.SOURCE, "language": Language.PYTHON}, "plain files alone"),
        (
            {"path": "/Shared/x.py", "content": "IyBEYXRhYnJpY2tzIG5vdGVib29rIHNvdXJjZQo=", "format": ImportFormat.AUTO},
            "no notebook",
        ),
        ({"path": "/Shared/x", "content": "?", "format": ImportFormat.RAW}, "not base64"),
        ({"path": "/../x", "content": "", "format": ImportFormat.RAW}, "leads out of the workspace"),
        ({"path": "/Shared/x", "content": "AAAA" * 3_500_000, "format": ImportFormat.RAW}, "the limit is"),
    ],
)
def test_what_is_no_plain_file_of_a_workspace_is_refused(server: Server, given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        server.client.workspace.import_(**given)
    assert list(server.client.workspace.list("/Shared")) == []


def test_sessions_workers_and_images_are_the_platforms(server: Server, tmp_path: Path) -> None:
    """Serverless compute: Spark Connect, and workers that know no store; a cluster: its own session, and workers that do."""
    objects = ObjectFolder(tmp_path / "objects")
    for key in ("images/2026/[x] é%1.jpg", "images/2026/gone.jpg", "images/2026//odd.jpg"):
        stored = StoredObject(key, "e", "2026-01-01T00:00:00", {})
        objects.add_bucket("landing")
        objects.write("landing", stored, b"content\nof " + key.encode())
    os.symlink(server.folder / "environments", tmp_path / "environments")  # made once
    with serving(tmp_path, tmp_path / "objects") as spark:
        serverless = Task(spark, "session")
        serverless.wait("RUNNING", seconds=300)
        objects.remove("landing", "images/2026/gone.jpg")
        cluster = Task(spark, "session", **on({"new_cluster": CLUSTER | {"data_security_mode": "SINGLE_USER"}}, "session"))
        first, second = (json.loads(next(line for line in _logs(one) if line.startswith("{"))) for one in (serverless, cluster))
    image = ["s3://landing/images/2026/[x] é%1.jpg", "content\nof images/2026/[x] é%1.jpg"]
    gone = ["s3://landing/images/2026/gone.jpg", "content\nof images/2026/gone.jpg"]
    assert first["images"] in ([image, gone], [image])  # it was running when one went
    assert second["images"] == [image]
    assert first["kind"].startswith("pyspark.sql.connect")
    assert not second["kind"].startswith("pyspark.sql.connect")
    assert not {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"} & set(first["workers"])
    assert {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"} <= set(second["workers"])


def _logs(task: Task) -> list[str]:
    assert task.wait(seconds=300)["state"]["result_state"] == "SUCCESS", task.output()
    return str(task.output()["logs"]).splitlines()
