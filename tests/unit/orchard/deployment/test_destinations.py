"""deploy: what is uploaded where, what is left alone, what it prints, and one line for each fault."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from orchard.cli import main
from orchard.clients import aws_client
from orchard.deployment.destinations import environment_file
from orchard.deployment.package import MANIFEST, WHEEL, build_package
from orchard.settings import Settings
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.storage import Warehouse
from support.changed_settings import switch_backbone
from support.databricks_files import TOKEN, VOLUME, VolumeServer, serve_volume
from support.databricks_workspace import PRINCIPAL, SECRET
from support.jobs_program import stand_in_for_jobs

PREFIX = "deployed/jobs"
Out = pytest.CaptureFixture[str]
# Breaks something and returns the command's words.
Fault = Callable[[Any, VolumeServer, pytest.MonkeyPatch], list[str]]
# Stands for the jobs' Python: an `orchard-jobs prepare` that writes a network, or cannot.
FAKE = """#!{python}
import json, os, sys
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.storage import Warehouse
assert sys.argv[1:4] == ["-m", "orchard_jobs.cli", "prepare"]
given = dict(zip(sys.argv[4::2], sys.argv[5::2]))
if os.environ.get("KERAS_HAS_NO_WEIGHTS"):  # a name that a job gets
    print("ConfigurationError: no weights", file=sys.stderr)
    sys.exit(2)
export = backbone_path(Backbone(**json.loads(given["--backbone"])).export_id)
assert Warehouse.at(given["--warehouse"]).create(export, b"a network")
"""


@pytest.fixture(autouse=True)
def environment(settings: Settings, no_cloud: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_jobs(FAKE, tmp_path, monkeypatch)
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VolumeServer]:
    with serve_volume(tmp_path / "workspace") as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.address)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield server


def objects(s3: Any) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket="cluster").get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket="cluster", Key=item["Key"])["Body"].read() for item in found}


def states(capsys: Out) -> dict[str, str]:
    """Return the state of each file by its name, of a run with --json."""
    return states_of(capsys.readouterr().out)


def states_of(out: str) -> dict[str, str]:
    return {file["uri"].rpartition("/")[2]: file["state"] for file in json.loads(out)["files"]}


def run_with_connection(to: str, connection_id: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: Airflow sets up logging for the process at its first import."""
    command = [sys.executable, "-m", "orchard.cli", "deploy", to, "--connection", connection_id, "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_package_and_the_network_go_where_the_cluster_reads_them(s3: Any, settings: Settings, capsys: Out) -> None:
    assert main(["deploy", f"s3://cluster/{PREFIX}/"]) == 0
    out, err = capsys.readouterr()
    built = build_package()
    assert objects(s3) == {f"{PREFIX}/{built.name}/{name}": content for name, content in built.files.items()}
    assert Warehouse.at(settings.warehouse).read(backbone_path(settings.backbone.id)) == b"a network"
    assert out.splitlines()[-2:] == ["settings:", f"ORCHARD_JOBS_URI=s3://cluster/{PREFIX}/{built.name}"]
    assert [line.split()[0] for line in out.splitlines()[:-2]] == ["uploaded"] * 4 + ["exported"]
    assert err == ""


def test_the_manifest_is_written_last(s3: Any, volume: VolumeServer) -> None:
    assert main(["deploy", VOLUME]) == 0
    assert volume.uploads()[-1] == f"{VOLUME}/{build_package().name}/{MANIFEST}"


def test_what_is_there_with_equal_content_is_left_alone(s3: Any, capsys: Out) -> None:
    assert main(["deploy", "s3://cluster", "--json"]) == 0
    assert set(states(capsys).values()) == {"uploaded", "exported"}
    for key in objects(s3):  # tags go when an object is written again
        s3.put_object_tagging(Bucket="cluster", Key=key, Tagging={"TagSet": [{"Key": "by", "Value": "test"}]})
    assert main(["deploy", "s3://cluster", "--json"]) == 0
    assert set(states(capsys).values()) == {"there"}
    assert all(s3.get_object_tagging(Bucket="cluster", Key=key)["TagSet"] for key in objects(s3))


@pytest.mark.parametrize("damage", [b"cut", None])
def test_a_damaged_file_is_replaced(s3: Any, capsys: Out, damage: bytes | None) -> None:
    """Cut short, or of equal size and other bytes by another writer."""
    assert main(["deploy", "s3://cluster"]) == 0
    built = build_package()
    key, content = f"{built.name}/{WHEEL}", built.files[WHEEL]
    s3.put_object(Bucket="cluster", Key=key, Body=content[::-1] if damage is None else damage)
    capsys.readouterr()
    assert main(["deploy", "s3://cluster", "--json"]) == 0
    found = states(capsys)
    assert [name for name, state in found.items() if state == "uploaded"] == [WHEEL]
    assert objects(s3)[key] == content


def test_a_dry_run_writes_nothing(s3: Any, settings: Settings, capsys: Out) -> None:
    assert main(["deploy", "s3://cluster", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {file["state"] for file in found["files"]} == {"missing"}
    assert found["settings"] == {"ORCHARD_JOBS_URI": f"s3://cluster/{build_package().name}"}
    assert found["is_dry_run"]
    assert objects(s3) == {}
    assert Warehouse.at(settings.warehouse).size(backbone_path(settings.backbone.id)) is None
    assert main(["deploy", "s3://cluster", "--dry-run"]) == 0
    assert "nothing was uploaded" in capsys.readouterr().out


def test_an_application_of_emr_serverless_is_made_once(s3: Any, capsys: Out) -> None:
    asked = ["deploy", "s3://cluster", "--application", "fruit", "--json"]
    assert main([*asked, "--dry-run"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert dry["files"][-1]["state"] == "missing"
    assert "ORCHARD_EMR_APPLICATION" not in dry["settings"]
    made = []
    for state in ("created", "there"):
        assert main(asked) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["files"][-1] == {"uri": "application fruit", "size_bytes": None, "state": state}
        made.append(found["settings"]["ORCHARD_EMR_APPLICATION"])
    assert made[0] == made[1]
    known = aws_client("emr-serverless", None).list_applications()["applications"]
    assert [(one["id"], one["type"].upper()) for one in known] == [(made[0], "SPARK")]
    assert main([*asked, "--release", "emr-7.1.0"]) == 2
    assert "is of type Spark and release emr-7.11.0, not Spark and emr-7.1.0" in capsys.readouterr().err


def test_an_application_is_none_of_databricks(volume: VolumeServer, capsys: Out) -> None:
    assert main(["deploy", VOLUME, "--application", "fruit"]) == 2
    assert "--application is for EMR Serverless" in capsys.readouterr().err


def test_an_environments_archive_goes_beside_under_a_name_of_its_content(s3: Any, tmp_path: Path, capsys: Out) -> None:
    archive = tmp_path / "jobs env.tar.gz"
    archive.write_bytes(os.urandom(9 * 2**20))  # in parts
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:12]
    for state in ("uploaded", "there"):
        assert main(["deploy", f"s3://cluster/{PREFIX}", "--environment", str(archive), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["settings"]["ORCHARD_JOBS_ENVIRONMENT"] == f"s3://cluster/{PREFIX}/environment-{digest}.tar.gz"
        assert {file["state"] for file in found["files"] if "environment-" in file["uri"]} == {state}
    assert objects(s3)[f"{PREFIX}/environment-{digest}.tar.gz"] == archive.read_bytes()


def test_a_warehouse_in_s3_gets_the_network(s3: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", "s3://cluster/warehouse")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert main(["deploy", "s3://cluster"]) == 0
    assert objects(s3)[f"warehouse/{backbone_path(settings.backbone.id)}"] == b"a network"


def test_the_network_of_a_gpu_is_exported_as_that_of_a_cpu(
    s3: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    of_cuda = replace(settings.backbone, engine="cuda")
    switch_backbone(monkeypatch, of_cuda)
    assert main(["deploy", "s3://cluster", "--json"]) == 0
    assert states(capsys)[f"{of_cuda.id}.onnx"] == "exported"


def test_a_network_that_needs_no_export_is_not_made(
    s3: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    switch_backbone(monkeypatch, replace(settings.backbone, engine="tensorflow"))
    assert main(["deploy", "s3://cluster", "--json"]) == 0
    assert set(states(capsys).values()) == {"uploaded"}


@pytest.mark.parametrize("folder", [f"{VOLUME}/orchard", "/Workspace/Shared/orchard"])
def test_databricks_gets_the_package_once(folder: str, volume: VolumeServer, capsys: Out) -> None:
    built = build_package()
    assert main(["deploy", folder]) == 0
    assert volume.files == {f"{folder}/{built.name}/{name}": content for name, content in built.files.items()}
    assert f"ORCHARD_JOBS_URI={folder}/{built.name}" in capsys.readouterr().out.splitlines()
    assert len(volume.uploads()) == 4
    assert main(["deploy", folder, "--json"]) == 0
    assert set(states(capsys).values()) == {"there"}
    assert volume.uploads() == []
    damaged = f"{folder}/{built.name}/orchard_jobs.zip"
    place = volume.volumes if folder.startswith(VOLUME) else volume.workspace
    place.path(damaged).write_bytes(volume.files[damaged][::-1])
    assert main(["deploy", folder]) == 0
    assert volume.uploads() == [damaged]
    assert volume.files[damaged] == built.files["orchard_jobs.zip"]


@pytest.mark.parametrize("folder", [VOLUME, "/Workspace/Shared/orchard"])
@pytest.mark.parametrize("calls", range(3))
def test_a_busy_workspace_is_asked_again(folder: str, calls: int, volume: VolumeServer, capsys: Out) -> None:
    """Whether the file is there, for its folder, and for its upload."""
    volume.failures += [*[None] * calls, (429, "RESOURCE_EXHAUSTED")]
    assert main(["deploy", folder]) == 0
    assert len(volume.uploads()) == 4


@pytest.mark.parametrize(
    ("fields", "is_let_in"),
    [
        ({"password": TOKEN}, True),
        ({"login": PRINCIPAL, "password": SECRET, "extra": {"service_principal_oauth": True}}, True),
        ({"login": PRINCIPAL, "password": "another", "extra": {"service_principal_oauth": True}}, False),
    ],
)
def test_an_airflow_connection_logs_in_to_databricks(
    volume: VolumeServer, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], is_let_in: bool
) -> None:
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    host, port = volume.address.rsplit(":", 1)
    connection = {"conn_type": "databricks", "host": host, "schema": "http", "port": int(port)}
    monkeypatch.setenv("AIRFLOW_CONN_DBX", json.dumps(connection | fields))
    done = run_with_connection(VOLUME, "dbx")
    assert (done.returncode == 0, bool(volume.files)) == (is_let_in, is_let_in), done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("orchard: ")] == done.stderr.splitlines()


def test_an_airflow_connection_logs_in_to_s3(s3: Any, s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    connection = {"conn_type": "aws", "login": "orchard", "password": "thing", "extra": {"endpoint_url": s3_address}}
    monkeypatch.setenv("AIRFLOW_CONN_OURS", json.dumps(connection))
    done = run_with_connection("s3://cluster", "ours")
    assert done.returncode == 0, done.stderr
    assert set(states_of(done.stdout).values()) == {"uploaded", "exported"}
    assert len(objects(s3)) == 4


def test_an_unknown_connection_is_refused() -> None:
    done = run_with_connection(VOLUME, "not_there")
    assert (done.returncode, done.stdout) == (2, "")
    assert "orchard: Airflow has no connection 'not_there'" in done.stderr


NO_BUCKETS = ("", "jobs", "s3://", "s3:///x", "s3://cluster//x", "s3://clu ster", "s3://cluster/a b", "s3://cluster/a#b")
NO_VOLUMES = ("/Volumes/main/ml", "/Volumes//ml/jobs", "/Workspace", "/Workspace/a b", "dbfs:/Volumes/main/ml/jobs")


@pytest.mark.parametrize("to", [*NO_BUCKETS, *NO_VOLUMES, "https://x/y", "/tmp/x"])
def test_another_place_is_refused(to: str, capsys: Out) -> None:
    assert main(["deploy", to]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"orchard: {to!r} is none of s3://BUCKET/PREFIX, /Volumes/")
    assert err.count("\n") == 1


def no_bucket(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["s3://absent/jobs"]


def no_s3(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return ["s3://cluster/jobs"]


def no_credentials(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which has read them
    return ["s3://cluster/jobs"]


def no_volume(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["/Volumes/main/ml/absent"]


def wrong_token(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("DATABRICKS_TOKEN", "wrong")
    return [VOLUME]


def no_workspace(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr("orchard.clients._RETRY_SECONDS", 1)
    return [VOLUME]


def no_right(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    volume.failures += [(403, "PERMISSION_DENIED")]
    return [VOLUME]


def no_log_in(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    return [VOLUME]


def an_environment_for_databricks(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Path("environment.tar.gz").write_bytes(b"packed")
    return [VOLUME, "--environment", "environment.tar.gz"]


def no_weights(s3: Any, volume: VolumeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("KERAS_HAS_NO_WEIGHTS", "1")
    return ["s3://cluster/jobs"]


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (no_bucket, 1, "cannot write s3://absent/jobs: "),
        (no_s3, 1, "cannot read s3://cluster/jobs: Could not connect"),
        (no_credentials, 1, "Unable to locate credentials: set AWS_ENDPOINT_URL, AWS_REGION and credentials"),
        (no_volume, 1, "cannot write /Volumes/main/ml/absent: Volume of /Volumes/main/ml/absent"),
        (wrong_token, 1, "cannot read /Volumes/main/ml/jobs: "),
        (no_workspace, 1, "cannot read /Volumes/main/ml/jobs: "),
        (no_right, 1, "needs READ VOLUME and WRITE VOLUME"),
        (no_log_in, 2, "no log-in to Databricks: "),
        (an_environment_for_databricks, 2, "--environment is for EMR"),
        (no_weights, 2, "cannot be loaded: ConfigurationError: no weights"),
    ],
)
def test_a_fault_is_one_line(
    fault: Fault,
    status: int,
    words: str,
    s3: Any,
    volume: VolumeServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Out,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["deploy", *fault(s3, volume, monkeypatch), "--json"]) == status
    out, err = capsys.readouterr()
    assert words in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(("name", "words"), [("env.tar", "unpacks only .tar.gz, .tgz"), ("env.tgz", "is not a file")])
def test_a_wrong_archive_is_refused_before_anything_is_reached(tmp_path: Path, name: str, words: str, capsys: Out) -> None:
    assert main(["deploy", "s3://cluster", "--environment", str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err


def test_an_archives_name_keeps_its_ending(tmp_path: Path) -> None:
    (tmp_path / "x.y.tgz").write_bytes(b"packed")
    assert environment_file(tmp_path / "x.y.tgz").path == f"environment-{hashlib.sha256(b'packed').hexdigest()[:12]}.tgz"
