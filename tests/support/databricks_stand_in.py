"""The Databricks stand-in as a process of its own, a wheel to run on it, and a client that lets no unknown key pass."""

import io
import signal
import subprocess
import sys
import textwrap
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from databricks.sdk import WorkspaceClient
from databricks.sdk.service import jobs
from orchard_sandbox.databricks.requests import without_empty
from orchard_sandbox.s3.landing import s3_environment

from support.emr_stand_in import JOBS, processes_of, wait_until
from support.faulty_server import FaultyServer
from support.steered_stand_in import steered_environment

TOKEN = "the-token"
VOLUME = "/Volumes/main/orchard/jobs"
WHEEL = f"{VOLUME}/fruit-1.0-py3-none-any.whl"
OVER = ("TERMINATED", "INTERNAL_ERROR")
# What the tasks of the tests do.
MODULE = """
    import json, os, pathlib, signal, subprocess, sys, time

    def told():
        print(json.dumps({"arguments": sys.argv, "environment": dict(os.environ), "python": sys.executable}))
        print("to the other stream", file=sys.stderr)
        return 7

    def fail():
        raise ValueError("no such fruit")

    def leave():
        sys.exit(3)

    def sleep():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        print("started", flush=True)
        time.sleep(300)

    def overrun():
        sleep()

    def deaf():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleep()

    def report():
        time.sleep(1)
        path = pathlib.Path(sys.argv[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    def held_report():
        while not pathlib.Path(sys.argv[1] + ".released").exists():
            time.sleep(0.1)
        report()

    def report_of_spark():
        from pyspark.sql import SparkSession
        assert SparkSession.getActiveSession().range(1000).repartition(2).count() == 1000
        report()

    def credential(name="orchard"):
        from databricks.sdk.runtime import dbutils
        assert not [name for name in os.environ if name.endswith(("ACCESS_KEY_ID", "ACCESS_KEY", "REGION"))]
        provider = dbutils.credentials.getServiceCredentialsProvider(name)
        import boto3
        session = boto3.Session(botocore_session=provider)
        print(json.dumps(list(session.get_credentials().get_frozen_credentials())))

    def other_credential():
        credential("other")

    def session():
        from pyspark.sql import SparkSession
        spark = SparkSession.getActiveSession()
        names = spark.range(1).mapInArrow(named, "name STRING").collect()
        images = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load("s3://landing/images/")
        found = sorted((row.path, bytes(row.content).decode()) for row in images.select("path", "content").collect())
        print(json.dumps({"kind": type(spark).__module__, "workers": [row.name for row in names], "images": found}))

    def named(batches):
        import pyarrow as pa
        for batch in batches:
            names = [name for name in os.environ if name.startswith("AWS_")]
            yield pa.RecordBatch.from_pydict({"name": pa.array(names, pa.string())})
"""


def make_wheel() -> bytes:
    """Return a wheel `fruit` with an entry point `fruit-told`, and each function of MODULE."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("fruit/__init__.py", textwrap.dedent(MODULE))
        archive.writestr("fruit-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fruit\nVersion: 1.0\n")
        archive.writestr("fruit-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("fruit-1.0.dist-info/entry_points.txt", "[console_scripts]\nfruit-told = fruit:told\n")
        archive.writestr("fruit-1.0.dist-info/RECORD", "")
    return packed.getvalue()


class Server(FaultyServer):
    """A stand-in over one folder."""

    def __init__(self, folder: Path, objects: Path, *options: str) -> None:
        self.folder, self.objects, self.options = folder, objects, options
        self.port = "0"
        self.start()

    def start(self) -> None:
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "support.steered_databricks", "--folder", str(self.folder)]
        command += ["--address-file", str(address), "--objects", str(self.objects), "--python", str(JOBS / "python")]
        command += ["--port", self.port, *self.options]
        store = s3_environment("http://127.0.0.1:9", "thing")
        environment = steered_environment(**store, DATABRICKS_TOKEN=TOKEN, ORCHARD_SECRET="leaked")
        self.process = subprocess.Popen(command, env=environment)
        wait_until(address.exists)
        self.address = address.read_text()
        self.port = self.address.rpartition(":")[2]
        self.client = WorkspaceClient(host=self.address, token=TOKEN)
        check_answers(self.client)

    def call(self, method: str, name: str, body: dict[str, Any] | None = None, **query: Any) -> requests.Response:
        """Call the Jobs API as it is on the wire."""
        url, headers = f"{self.address}/api/2.2/jobs/runs/{name}", {"Authorization": f"Bearer {TOKEN}"}
        return requests.request(method, url, json=body, params=query, headers=headers, timeout=60)

    def upload_wheel(self) -> None:
        self.client.files.upload(WHEEL, io.BytesIO(make_wheel()), overwrite=True)


@contextmanager
def serving(folder: Path, objects: Path, *options: str) -> Iterator[Server]:
    """Start a stand-in with the wheel on its volume, and see that it ends well."""
    server = Server(folder, objects, *options)
    try:
        server.upload_wheel()
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0


class Task:
    """A submitted run, followed through the API as it is on the wire."""

    def __init__(self, server: Server, function: str, *parameters: str, **given: Any) -> None:
        self.server = server
        self.request = request_of(function, *parameters) | {"idempotency_token": uuid.uuid4().hex} | given
        answer = server.call("POST", "submit", self.request)
        assert answer.status_code == 200, answer.text
        self.run_id: int = answer.json()["run_id"]

    @property
    def states(self) -> list[str]:
        return self.server.states(self.run_id)

    def shown(self) -> dict[str, Any]:
        run: dict[str, Any] = self.server.call("GET", "get", run_id=self.run_id).json()
        check_known(jobs.Run, run)
        assert run["tasks"][0]["state"] == run["state"]
        return run

    def wait(self, *states: str, seconds: float = 300) -> dict[str, Any]:
        """Wait for one of the states, or for the end."""
        wait_until(lambda: self.shown()["state"]["life_cycle_state"] in (states or OVER), seconds)
        return self.shown()

    def result(self) -> str:
        return str(self.wait()["state"]["result_state"])

    def output(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.call("GET", "get-output", run_id=self.shown()["tasks"][0]["run_id"]).json()
        check_known(jobs.RunOutput, found)
        return found

    def cancel(self) -> None:
        assert self.server.call("POST", "cancel", {"run_id": self.run_id}).json() == {}

    def processes(self) -> list[int]:
        return processes_of(str(self.server.folder / "runs" / str(self.run_id)))


def request_of(function: str, *parameters: str) -> dict[str, Any]:
    """Return a request that runs a function of the wheel on serverless compute."""
    wheel = {"package_name": "fruit", "entry_point": function, "parameters": list(parameters)}
    environment = {"environment_key": "jobs", "spec": {"environment_version": "4", "dependencies": [WHEEL]}}
    return {
        "run_name": "a run",
        "tasks": [{"task_key": "only", "python_wheel_task": wheel, "environment_key": "jobs"}],
        "environments": [environment],
    }


# By method and path, what the SDK makes of an answer; None where it reads nothing.
ANSWERS: dict[tuple[str, str], Any] = {
    ("GET", "/api/2.2/jobs/runs/get"): jobs.Run,
    ("GET", "/api/2.2/jobs/runs/get-output"): jobs.RunOutput,
    ("POST", "/api/2.2/jobs/runs/cancel"): None,
    ("POST", "/api/2.2/jobs/runs/submit"): jobs.SubmitRunResponse,
}


def check_answers(client: WorkspaceClient) -> None:
    """Have each answer of the Jobs API that a client gets checked: the SDK drops what it does not know."""
    api: Any = client.jobs._api
    ask = api.do

    def asked(method: str, path: str = "", **given: Any) -> Any:
        answer = ask(method, path, **given)
        if path.startswith("/api/2.2/jobs/"):
            kind = ANSWERS[method, path]
            if kind is None:
                assert answer == {}
            else:
                check_known(kind, answer)
        return answer

    api.do = asked


def check_known(kind: Any, answer: dict[str, Any]) -> None:
    """Fail where the SDK's dataclass does not know all that the answer holds: it drops what it does not know."""
    assert without_empty(kind.from_dict(answer).as_dict()) == without_empty(answer)


def write_certificate(path: Path) -> Path:
    """Write a key and its own certificate for 127.0.0.1, good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a workspace")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    kind = serialization.PrivateFormat.PKCS8
    packed = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    path.write_bytes(packed + certificate.public_bytes(serialization.Encoding.PEM))
    return path
