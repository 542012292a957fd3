"""The images and the compose file, really started: a batch of real images ends right, whatever is killed in the middle."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from botocore.exceptions import ClientError
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.samples import image_bytes
from orchard_sandbox.stack.stack_paths import ROOT
from orchard_sandbox.stack.supervisor import free_port
from orchard_sandbox.stack.upload import s3_client
from PIL import Image
from support.repository import SHARED

pytestmark = pytest.mark.containers
HERE = Path(__file__).parent
PROJECT, KILLED = "orchard-test", ("scheduler", "postgres", "s3")
DAY, SECOND = "2026-03-01", "2026-03-02"
GOOD, BROKEN = 100, 2
# With a base image of 125 MB, which is what the published one weighs.
LARGEST_MB, BASE_MB, BASE = {"airflow": 700, "jobs": 900}, 125, "python:3.13-slim-trixie"
LABELS = {"version": version("orchard"), "revision": "0123abc", "source": "here"}
SERVICES = ("postgres", "s3", "spark", "api-server", "dag-processor", "scheduler", "triggerer")


class Compose:
    """One compose project with secrets, ports and volumes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, {"AIRFLOW_PORT": free_port(), "S3_PORT": free_port()}
        keys = ("S3_SECRET_KEY", "S3_UPLOAD_KEY", "S3_AIRFLOW_KEY", "S3_JOBS_KEY")
        names = ("POSTGRES_PASSWORD", "ADMIN_PASSWORD", "JWT_SECRET", *keys)
        self.secrets = {name: secrets.token_hex(32) for name in names}
        self.secrets["FERNET_KEY"] = urlsafe_b64encode(os.urandom(32)).decode()
        transport = json.dumps({"type": "file", "log_file_path": "/warehouse/events.jsonl", "append": True})
        (folder / "settings.env").write_text("ORCHARD_QUIET_SECONDS=5\nORCHARD_RETRY_SECONDS=5\n")
        values = {
            **self.secrets,
            **self.ports,
            "OPENLINEAGE_TRANSPORT": f"'{transport}'",
            "ORCHARD_SETTINGS": folder / "settings.env",
            "ORCHARD_REVISION": LABELS["revision"],
            "ORCHARD_SOURCE_URL": LABELS["source"],
        }
        (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        (folder / "password.json").write_text(json.dumps({"admin": self.secrets["ADMIN_PASSWORD"]}))
        self.environment = {"AWS_ACCESS_KEY_ID": "orchard", "AWS_SECRET_ACCESS_KEY": self.secrets["S3_SECRET_KEY"]}

    def set(self, lines: str) -> None:
        """Set further variables, as lines of `.env`."""
        with (self.folder / "env").open("a") as file:
            file.write(lines)

    def __call__(self, *words: str, check: bool = True) -> str:
        command = ["docker", "compose", "-p", PROJECT, "--env-file", str(self.folder / "env"), *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2400, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout[-1500:]} {done.stderr[-1500:]}"
        return done.stdout

    @property
    def api(self) -> AirflowApi:
        return AirflowApi(f"http://127.0.0.1:{self.ports['AIRFLOW_PORT']}", self.folder / "password.json")

    @property
    def s3(self) -> Any:
        return s3_client(self.environment | {"AWS_ENDPOINT_URL": self.s3_address})

    @property
    def s3_address(self) -> str:
        return f"http://127.0.0.1:{self.ports['S3_PORT']}"

    def task(self, run_id: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.call("GET", f"dags/image_batches/dagRuns/{run_id}/taskInstances/{name}")
        return found

    def cores_used(self, service: str) -> float:
        """Return how many cores a service's processes kept busy in the last second or two."""
        told = docker("stats", "--no-stream", "--format", "{{.CPUPerc}}", self.inspect(service)["Id"])
        return float(told.strip().rstrip("%")) / 100

    def upload(self, images: Path, batch: str) -> None:
        """Upload as a user does."""
        variables = {"TO": self.s3_address, "IMAGES": str(images), "BATCHES": batch, "PYTHONPATH": str(ROOT / "sandbox")}
        variables |= {"AWS_ACCESS_KEY_ID": "uploader", "AWS_SECRET_ACCESS_KEY": self.secrets["S3_UPLOAD_KEY"]}
        command = [sys.executable, "-m", "orchard_sandbox", "upload"]
        subprocess.run(command, env=os.environ | variables, cwd=ROOT, check=True, timeout=120)

    def inspect(self, service: str) -> dict[str, Any]:
        name = self("ps", "-aq", service).split()[0]
        found: dict[str, Any] = json.loads(docker("inspect", name))[0]
        return found

    def kill(self, service: str) -> None:
        """End a service's first process as a crash does. A `docker kill` is meant, and nothing starts again after it."""
        os.kill(self.inspect(service)["State"]["Pid"], signal.SIGKILL)

    def tables(self, target: Path) -> Path:
        """Return a copy of the warehouse, taken from outside."""
        shutil.rmtree(target, ignore_errors=True)
        docker("cp", f"{self.inspect('spark')['Id']}:/warehouse", str(target))
        return target

    def wait(self, run_id: str, seconds: float = 420) -> str:
        """Wait for a run's end, through whatever is down meanwhile; return its state."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                state = self.api.call("GET", f"dags/image_batches/dagRuns/{run_id}")["state"]
                if state in ("success", "failed"):
                    return str(state)
            except Exception as error:
                print("not answered:", error)
            time.sleep(2)
        raise AssertionError(f"{run_id} did not end: {self('logs', '--tail', '40', 'scheduler', check=False)}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begin:.0f} s")


def engine(word: str) -> str:
    done = subprocess.run([str(HERE / "engine.sh"), word], capture_output=True, text=True, check=False, timeout=2400)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=600).stdout


def image_of(name: str) -> str:
    return f"orchard-{name}:{version('orchard')}"


def files_holding(words: list[str], image: str) -> list[str]:
    """Return the files of an image, its base's programs left out, that hold one of some words."""
    search = ("grep", "-rlF", "-f", "-", "/opt", "/etc", "/home", "/root", "/tmp", "/var", "/warehouse")
    command = ["docker", "run", "--rm", "-i", "--user", "0", "--entrypoint", search[0], image, *search[1:]]
    done = subprocess.run(command, input="\n".join(words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def write_batch(folder: Path, day: str, first: int) -> None:
    fruits = sorted((SHARED / "fruits360").rglob("*.jpg"))[first :: 9660 // GOOD][:GOOD]
    contents = [path.read_bytes() for path in fruits] or [image_bytes("Kiwi", first + n) for n in range(GOOD)]
    for number, content in enumerate(contents):
        path = folder / day / f"label {number % 5}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for number in range(BROKEN):
        (folder / day / "label 0" / f"broken {number} # %.jpg").write_bytes(f"no image {day} {number}".encode())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_batch(folder, DAY, 0)
    write_batch(folder, SECOND, 1)
    return folder


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Both images built, while those of the other services are had, and the stack up."""
    compose = Compose(tmp_path_factory.mktemp("compose"))
    compose("down", "-v", check=False)
    try:
        with timed("base image"):
            compose.set(engine("base"))
        with timed("images"), ThreadPoolExecutor() as beside:
            others = beside.submit(engine, "images")
            with timed("build"):
                compose("build")
            compose.set(others.result())
        with timed("up --wait"):
            compose("up", "--wait", "--no-build")
        yield compose
    finally:
        print(compose("logs", "--tail", "15", check=False)[-6000:])
        compose("down", "-v", "--remove-orphans")
        assert PROJECT not in docker("volume", "ls", "-q")
        assert not docker("ps", "-aq", "--filter", f"name={PROJECT}")


def test_no_service_is_root_or_writable_or_open_to_others(compose: Compose) -> None:
    for service in SERVICES:
        found = compose.inspect(service)
        published = found["HostConfig"]["PortBindings"] or {}
        assert all(one["HostIp"] == "127.0.0.1" for ports in published.values() for one in ports), service
        if service not in ("postgres", "s3"):  # which run as the user of their images
            assert compose("exec", "-T", service, "id", "-u").strip() == "50000", service
        if service != "postgres":  # which hands its folder over to its user
            assert found["HostConfig"]["ReadonlyRootfs"], service
            assert found["HostConfig"]["CapDrop"] == ["ALL"], service
        assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"], service
        assert found["HostConfig"]["Memory"] > 0, service
        assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", service
        assert found["HostConfig"]["LogConfig"]["Config"]["max-size"], service


def test_images_are_small_and_hold_no_secret(compose: Compose) -> None:
    for name, largest in LARGEST_MB.items():
        image = image_of(name)
        (found,) = json.loads(docker("image", "inspect", image))
        size, base = (json.loads(docker("image", "inspect", name))[0]["Size"] / 1e6 for name in (image, BASE))
        print(f"{image}: {size:.0f} MB on a base of {base:.0f} MB")
        assert size - base < largest - BASE_MB
        told = docker("history", "--no-trunc", image) + json.dumps(found["Config"])
        assert not [secret for secret in compose.secrets.values() if secret in told]
        assert files_holding(list(compose.secrets.values()), image) == []
        assert files_holding(["orchard-jobs"], image) != []
        labels = {label: found["Config"]["Labels"][f"org.opencontainers.image.{label}"] for label in LABELS}
        assert labels == LABELS
        compilers = "command -v gcc || command -v cc || command -v ld || command -v javac || echo none"
        assert docker("run", "--rm", "--entrypoint", "sh", image, "-c", compilers).strip() == "none"


def test_secrets_beside_the_code_stay_out_of_the_images(compose: Compose, tmp_path: Path) -> None:
    checkout, canary = tmp_path / "checkout", secrets.token_hex(32)
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".venv", ".git", ".orchard", ".*cache", "__pycache__"))
    for name in (".env", "settings.env", ".git/config", ".orchard/airflow-password.json", "requirements/pip.conf"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(canary)
    given = LABELS | {"base": engine("base").strip().partition("=")[2]}
    labels = [word for label, value in given.items() for word in ("--build-arg", f"{label.upper()}={value}")]
    for file in ("Dockerfile", "spark_jobs/Dockerfile"):  # with the layers of the images that are there
        image = docker("build", "-q", *labels, "-f", str(checkout / file), str(checkout)).strip()
        assert files_holding([canary], image) == []


def test_airflow_asks_for_a_log_in(compose: Compose) -> None:
    address = f"http://127.0.0.1:{compose.ports['AIRFLOW_PORT']}"
    assert requests.get(f"{address}/api/v2/dags", timeout=30).status_code == 401
    wrong = requests.post(f"{address}/auth/token", json={"username": "admin", "password": "admin"}, timeout=30)
    assert wrong.status_code == 401
    assert {"image_batches", "pca_model"} <= {dag["dag_id"] for dag in compose.api.call("GET", "dags")["dags"]}


USERS = {"UPLOAD": "uploader", "AIRFLOW": "airflow", "JOBS": "jobs"}
ALLOWED = {("UPLOAD", "put"), *((user, verb) for user in USERS for verb in ("get", "list"))}


@pytest.mark.parametrize("user", USERS)
def test_a_key_may_do_what_its_user_needs_in_the_landing_bucket(compose: Compose, user: str) -> None:
    compose.s3.put_object(Bucket="landing", Key="rights/there", Body=b"x")
    key = {"AWS_ACCESS_KEY_ID": USERS[user], "AWS_SECRET_ACCESS_KEY": compose.secrets[f"S3_{user}_KEY"]}
    s3 = s3_client(key | {"AWS_ENDPOINT_URL": compose.s3_address})
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: s3.put_object(Bucket="landing", Key=f"rights/{user}", Body=b"x"),
        "get": lambda: s3.get_object(Bucket="landing", Key="rights/there"),
        "list": lambda: s3.list_objects_v2(Bucket="landing"),
        "delete": lambda: s3.delete_object(Bucket="landing", Key="rights/there"),
        "make": lambda: s3.create_bucket(Bucket="another"),
    }
    for verb, call in calls.items():
        with nullcontext() if (user, verb) in ALLOWED else pytest.raises(ClientError, match="AccessDenied"):
            call()


def test_only_the_schedulers_tasks_reach_spark(compose: Compose) -> None:
    ask = "import socket; socket.create_connection(('spark', 15002), 5); print('reached')"
    services = ("scheduler", "api-server", "dag-processor", "triggerer")
    found = {service: compose("exec", "-T", service, "python", "-c", ask, check=False).strip() for service in services}
    assert found == {service: "reached" if service == "scheduler" else "" for service in services}


def test_a_batch_is_published_though_every_service_is_killed_midway(compose: Compose, images: Path, tmp_path: Path) -> None:
    compose.upload(images, DAY)
    run_id = compose.api.start_run("image_batches", DAY, {"quiet_seconds": 0})
    wait_until(lambda: compose.task(run_id, "featurize")["state"] == "running")
    time.sleep(3)
    assert compose.task(run_id, "featurize")["state"] == "running"
    for service in KILLED:
        compose.kill(service)
    assert compose.wait(run_id) == "success"
    assert compose.task(run_id, "featurize")["try_number"] == 2
    assert all(compose.inspect(service)["RestartCount"] == 1 for service in KILLED)
    warehouse = compose.tables(tmp_path / "warehouse")
    check_tables(warehouse, DAY)
    events = [json.loads(line) for line in (warehouse / "events.jsonl").read_text().splitlines()]
    told = [
        event["run"]["facets"]["orchard_batchVersion"] for event in events if "orchard_batchVersion" in event["run"]["facets"]
    ]
    assert {facet["manifestDigest"] for facet in told} == set(pl.read_delta(str(warehouse / "runs"))["manifest_digest"])


def test_down_and_up_keep_everything(compose: Compose, images: Path, tmp_path: Path) -> None:
    compose("down")
    compose("up", "--wait", "--no-build")
    assert compose.s3.list_objects_v2(Bucket="landing", Prefix=f"images/{DAY}/")["KeyCount"] == GOOD + BROKEN
    assert compose.api.runs("image_batches", ("success",))
    compose.upload(images, SECOND)
    assert compose.wait(compose.api.start_run("image_batches", SECOND, {"quiet_seconds": 0})) == "success"
    while compose.api.runs("pca_model", ("queued", "running")):
        time.sleep(2)
    warehouse = compose.tables(tmp_path / "warehouse")
    for day in (DAY, SECOND):
        check_tables(warehouse, day)
    projected = pl.read_delta(str(warehouse / "pca_features"))
    promotions = pl.read_delta(str(warehouse / "promotions")).filter(pl.col("kind") == "pca")
    model = promotions.sort("sequence").tail(1)["model_id"][0]
    assert projected.filter(pl.col("model_id") == model).height == 2 * GOOD


def test_the_jobs_image_runs_a_job_alone_on_a_warehouse_in_s3(compose: Compose, tmp_path: Path) -> None:
    """A container featurizes a copy of the published batch's manifest, with neither Airflow nor a Spark server."""
    warehouse = compose.tables(tmp_path / "warehouse")
    digest = pl.read_delta(str(warehouse / "runs")).filter(pl.col("batch_id") == DAY)["manifest_digest"][0]
    compose.s3.create_bucket(Bucket="alone")
    for folder in (f"_work/manifests/{digest}", "_work/networks"):
        for path in (warehouse / folder).iterdir():
            compose.s3.upload_file(str(path), "alone", f"{folder}/{path.name}")
    variables = {"AWS_ENDPOINT_URL": "http://s3:7070", "AWS_REGION": "us-east-1", **compose.environment}
    words = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    run = ("run", "--rm", "--network", f"{PROJECT}_jobs", "--read-only", "--tmpfs", "/tmp", *words, image_of("jobs"))
    docker(*run, "featurize", "--warehouse", "s3://alone", "--input-digest", digest)
    keys = [found["Key"] for found in compose.s3.list_objects_v2(Bucket="alone")["Contents"]]
    (report,) = (key for key in keys if key.endswith("/report.json"))
    told = json.loads(compose.s3.get_object(Bucket="alone", Key=report)["Body"].read())
    assert (told["counts"]["featurized"], told["counts"]["quarantined"]) == (GOOD, BROKEN)


def test_a_killed_task_cancels_what_it_asked_of_spark(compose: Compose, images: Path) -> None:
    """The server has minutes of work when the task is marked failed, and none soon after."""
    day = "2026-03-03"
    drawn = BytesIO()
    Image.effect_noise((3000, 2000), 40).convert("RGB").save(drawn, "JPEG", quality=20)
    for number in range(400):
        comment = f"{number:08}".encode()
        path = images / day / "large" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.getvalue()[:2] + b"\xff\xfe\x00\x0a" + comment + drawn.getvalue()[2:])
    compose.upload(images, day)
    run_id = compose.api.start_run("image_batches", day, {"quiet_seconds": 0})
    wait_until(lambda: compose.task(run_id, "featurize")["state"] == "running" and compose.cores_used("spark") > 0.8)
    before = compose("exec", "-T", "spark", "sh", "-c", "ls /warehouse/_work/*/report.json")
    compose.api.call("PATCH", f"dags/image_batches/dagRuns/{run_id}/taskInstances/featurize", {"new_state": "failed"})
    begin = time.monotonic()
    wait_until(lambda: compose.cores_used("spark") < 0.2, seconds=40)
    print(f"idle {time.monotonic() - begin:.0f} s after the task was marked failed")
    assert compose("exec", "-T", "spark", "sh", "-c", "ls /warehouse/_work/*/report.json") == before
    assert compose.wait(run_id) == "failed"


def wait_until(holds: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def check_tables(warehouse: Path, day: str) -> None:
    """Nothing is lost and nothing doubled."""
    found = {
        name: pl.read_delta(str(warehouse / name)).filter(pl.col("batch_id") == day)
        for name in ("features", "quarantine", "runs")
    }
    assert found["features"].height == found["features"]["image_uri"].n_unique() == GOOD
    assert found["quarantine"].height == found["quarantine"]["image_uri"].n_unique() == BROKEN
    (run,) = found["runs"].to_dicts()
    assert (run["listed"], run["target"]) == (GOOD + BROKEN, "local")
