"""The S3 stand-in with EMR Serverless as a process of its own, and a client that checks each answer against botocore's model."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import requests
from botocore.config import Config
from botocore.validate import ParamValidator
from orchard_sandbox.s3.landing import KEY

from support.faulty_server import FaultyServer
from support.quick_spark_submit import quick_python
from support.repository import ROOT
from support.steered_stand_in import steered_environment

JOBS = ROOT / ".venv" / "jobs" / "bin"
ROLE = "arn:aws:iam::123456789012:role/jobs"
LOGS = {"monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": "s3://jobs/logs/"}}}
TERMINAL = ("SUCCESS", "FAILED", "CANCELLED")
MODEL = botocore.session.get_session().get_service_model("emr-serverless")


class Server(FaultyServer):
    """A stand-in over one folder, with a client that checks each answer against botocore's model.

    Args:
        folder: its data.
        is_quick: whether scripts without Spark start without it.
    """

    def __init__(self, folder: Path, *, is_quick: bool = False) -> None:
        self.folder = folder
        self._python = quick_python(folder / "environment", JOBS.parent) if is_quick else JOBS / "python"
        self.start()
        self.s3.create_bucket(Bucket="jobs")

    def start(self) -> None:
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "support.steered_aws", "--folder", str(self.folder / "landing")]
        command += ["--address-file", str(address), "--work", str(self.folder / "work")]
        command += ["--python", str(self._python)]
        environment = steered_environment(
            AWS_SECRET_ACCESS_KEY="thing", ORCHARD_TEST_MINUTE_SECONDS="0.4", ORCHARD_SECRET="leaked", AIRFLOW_SECRET="leaked"
        )
        self.process = subprocess.Popen(command, env=environment)
        wait_until(address.exists)
        self.address = address.read_text()
        self.s3 = self.client("s3")
        self.emr = self.client("emr-serverless")
        self.emr.meta.events.register("after-call.emr-serverless", check_answer)

    def client(self, service: str, **config: Any) -> Any:
        client: Callable[..., Any] = boto3.client  # whose stubs know services by their literal names
        return client(
            service,
            endpoint_url=self.address,
            aws_access_key_id=KEY,
            aws_secret_access_key="thing",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    def put(self, key: str, content: str | bytes) -> str:
        self.s3.put_object(Bucket="jobs", Key=key, Body=textwrap.dedent(content) if isinstance(content, str) else content)
        return f"s3://jobs/{key}"

    def application(self, **given: Any) -> str:
        answer = self.emr.create_application(**{"name": "orchard", "releaseLabel": "emr-7.11.0", "type": "SPARK", **given})
        name: str = answer["applicationId"]
        return name

    def faults(self) -> Any:
        return requests.get(f"{self.address}/_orchard/faults", timeout=10).json()


@contextmanager
def serving(folder: Path, *, is_quick: bool = False) -> Iterator[Server]:
    """Start a stand-in over a folder, and see that it ends well."""
    server = Server(folder, is_quick=is_quick)
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(120) == 0


class Job:
    """A submitted job run, followed through the API."""

    def __init__(self, server: Server, application: str, script: str, arguments: list[str] | None = None, **given: Any) -> None:
        self.server = server
        self.application = application
        spark = {"entryPoint": server.put(f"scripts/{uuid.uuid4().hex}.py", script), "entryPointArguments": arguments or []}
        spark |= given.pop("spark", {})
        self.request = {
            "applicationId": application,
            "clientToken": uuid.uuid4().hex,
            "executionRoleArn": ROLE,
            "jobDriver": {"sparkSubmit": spark},
            "configurationOverrides": LOGS,
            **given,
        }
        self.name = server.emr.start_job_run(**self.request)["jobRunId"]
        self.keys = {"applicationId": application, "jobRunId": self.name}

    @property
    def states(self) -> list[str]:
        return self.server.states(self.name)

    def shown(self) -> dict[str, Any]:
        run: dict[str, Any] = self.server.emr.get_job_run(**self.keys)["jobRun"]
        return run

    def wait(self, *states: str, seconds: float = 300) -> dict[str, Any]:
        """Wait for one of the states, or for the end."""
        wait_until(lambda: self.shown()["state"] in (states or TERMINAL), seconds)
        return self.shown()

    def cancel(self) -> None:
        self.server.emr.cancel_job_run(**self.keys)

    def log(self, name: str) -> str:
        key = f"logs/applications/{self.application}/jobs/{self.name}/SPARK_DRIVER/{name}.gz"
        body: bytes = self.server.s3.get_object(Bucket="jobs", Key=key)["Body"].read()
        return gzip.decompress(body).decode()

    def written(self) -> str:
        """Return what the job has written to stdout by now, which is on S3 only when it has ended."""
        written: Path = self.server.folder / "work" / "jobs" / self.name / "task" / "stdout"
        return written.read_text()

    def processes(self) -> list[int]:
        return processes_of(self.name)


def processes_of(name: str) -> list[int]:
    """Return all processes that have a job's name in the environment or the arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / file).read_bytes() for file in ("environ", "cmdline")]
            is_dead = b") Z " in (process / "stat").read_bytes()
        except OSError:
            continue
        if any(name.encode() in text for text in texts) and not is_dead:
            found.append(int(process.name))
    return found


def wait_until(is_so: Callable[[], Any], seconds: float = 120) -> None:
    """Wait for a state that lasts, however busy the machine is."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def check_answer(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Fail where an answer does not fit botocore's shape: types, required members, unknown ones, enums, lengths."""
    if http_response.status_code >= 300:
        shape = next(shape for shape in model.error_shapes if shape.name == parsed["Error"]["Code"])
        assert http_response.status_code == shape.metadata["error"]["httpStatusCode"]
        return
    answer = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
    report = ParamValidator().validate(answer, model.output_shape)
    assert not report.has_errors(), report.generate_report()
    check_wire(model.output_shape, json.loads(http_response.content or b"{}"), model.name)


def check_wire(shape: Any, value: Any, where: str) -> None:
    if shape.type_name == "structure":
        assert value.keys() <= shape.members.keys(), where
        for name, item in value.items():
            check_wire(shape.members[name], item, f"{where}.{name}")
    elif shape.type_name == "list":
        for item in value:
            check_wire(shape.member, item, where)
    elif shape.type_name == "map":
        for item in value.values():
            check_wire(shape.value, item, where)
    elif shape.type_name == "string":
        assert value in (getattr(shape, "enum", None) or [value]), where
        assert shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)), where


def packed_environment(folder: Path) -> bytes:
    """Return a packed environment that has what the jobs' has; its interpreter is a link to the system's, as in all."""
    environment = folder / "environment"
    subprocess.run([str(JOBS / "python"), "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = (JOBS.parent / "lib").glob("python3.*/site-packages")
    (environment / "lib" / packages.parent.name / "site-packages" / "jobs.pth").write_text(str(packages))
    return Path(shutil.make_archive(str(environment), "gztar", environment)).read_bytes()
