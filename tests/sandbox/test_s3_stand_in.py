"""The S3 stand-in as a real process: what was answered with success outlives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from orchard.landing_zone.messages import read_messages
from orchard.settings import Settings
from orchard_sandbox.s3.landing import aws_client, queue_url, s3_environment, unread_messages
from orchard_sandbox.stack.target_stand_ins import make_warehouse_bucket

SANDBOX = Path(__file__).resolve().parents[2] / "sandbox"
SECRET = "thing"
ODD_KEYS = [
    "a b",
    "é日本",
    "+%2F",
    "#?&<c>",
    "a//b",
    "/lead",
    "x/",
    "x/../y",
    "tab\there",
    "line\nbreak/a\r\nb\n",
    "k" * 1024,
    "\U0001f34e",
]


class StandIn:
    """A stand-in over one folder that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, port: int = 0) -> Any:
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "orchard_sandbox.aws_stand_in", "--folder", str(self.folder / "landing")]
        self.process = subprocess.Popen(
            [*command, "--address-file", str(address), "--port", str(port)],
            env={**os.environ, "PYTHONPATH": str(SANDBOX), "AWS_SECRET_ACCESS_KEY": SECRET},
        )
        deadline = time.monotonic() + 60
        while not address.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.address = address.read_text()
        self.variables = s3_environment(self.address, SECRET)
        return aws_client("s3", self.variables)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path)
    yield stand_in
    if stand_in.process is not None and stand_in.process.poll() is None:
        stand_in.end(signal.SIGKILL)


def test_the_bucket_of_a_warehouse_is_made_and_stays_as_it_is(stand_in: StandIn) -> None:
    s3 = stand_in.start()
    told = stand_in.variables
    make_warehouse_bucket(told | {"ORCHARD_WAREHOUSE": "s3://lake/a/b"})
    s3.put_object(Bucket="lake", Key="a/b/runs", Body=b"x")
    make_warehouse_bucket(told | {"ORCHARD_WAREHOUSE": "s3://lake"})
    make_warehouse_bucket(told | {"ORCHARD_WAREHOUSE": "file:///a/b"})
    assert {found["Name"] for found in s3.list_buckets()["Buckets"]} == {"landing", "lake"}
    assert s3.get_object(Bucket="lake", Key="a/b/runs")["Body"].read() == b"x"


def listing(s3: Any) -> list[tuple[Any, ...]]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="landing")
    return [(o["Key"], o["ETag"], o["Size"], o["LastModified"]) for page in pages for o in page.get("Contents", [])]


def content(s3: Any, key: str) -> bytes:
    body: bytes = s3.get_object(Bucket="landing", Key=key)["Body"].read()
    return body


def test_every_change_outlives_a_kill(stand_in: StandIn) -> None:
    s3 = stand_in.start()
    for key in ("kept", "overwritten", "deleted", "one of many", "copied"):
        s3.put_object(Bucket="landing", Key=key, Body=key.encode(), ContentType="image/jpeg", Metadata={"by": "me"})
    s3.put_object(Bucket="landing", Key="overwritten", Body=b"second")
    s3.delete_object(Bucket="landing", Key="deleted")
    s3.delete_objects(Bucket="landing", Delete={"Objects": [{"Key": "one of many"}]})
    s3.copy_object(Bucket="landing", Key="copy", CopySource={"Bucket": "landing", "Key": "copied"})
    upload = s3.create_multipart_upload(Bucket="landing", Key="large")["UploadId"]
    parts = [
        s3.upload_part(Bucket="landing", Key="large", UploadId=upload, PartNumber=number, Body=body)
        for number, body in ((1, b"a" * 5 * 2**20), (2, b"b"))
    ]
    s3.complete_multipart_upload(
        Bucket="landing",
        Key="large",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": n + 1, "ETag": part["ETag"]} for n, part in enumerate(parts)]},
    )
    s3.create_bucket(Bucket="another")
    before = listing(s3)
    stand_in.end(signal.SIGKILL)
    s3 = stand_in.start()
    assert listing(s3) == before
    assert [key for key, *_ in before] == ["copied", "copy", "kept", "large", "overwritten"]
    assert {key: etag for key, etag, *_ in before}["large"].endswith('-2"')
    assert content(s3, "overwritten") == b"second"
    assert content(s3, "copy") == b"copied"
    assert len(content(s3, "large")) == 5 * 2**20 + 1
    head = s3.head_object(Bucket="landing", Key="kept")
    assert (head["ContentType"], head["Metadata"]) == ("image/jpeg", {"by": "me"})
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {"landing", "another"}


def test_odd_keys_and_bytes_outlive_a_kill(stand_in: StandIn) -> None:
    s3 = stand_in.start()
    for key in ODD_KEYS:
        s3.put_object(Bucket="landing", Key=key, Body=b"\n{}\n" + key.encode())
    stand_in.end(signal.SIGKILL)
    s3 = stand_in.start()
    assert {key for key, *_ in listing(s3)} == set(ODD_KEYS)
    assert all(content(s3, key) == b"\n{}\n" + key.encode() for key in ODD_KEYS)


def test_a_conditional_put_that_is_refused_changes_nothing(stand_in: StandIn) -> None:
    s3 = stand_in.start()
    s3.put_object(Bucket="landing", Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError):
        s3.put_object(Bucket="landing", Key="once", Body=b"second", IfNoneMatch="*")
    stand_in.end(signal.SIGKILL)
    assert content(stand_in.start(), "once") == b"first"


def test_many_objects_are_listed_and_half_written_files_removed(stand_in: StandIn) -> None:
    from orchard_sandbox.s3.objects import ObjectFolder, StoredObject

    folder = ObjectFolder(stand_in.folder / "landing")
    for number in range(10_000):
        folder.write("landing", StoredObject(f"images/{number:05}", "0" * 32, "2026-01-05T10:00:00.123456", {}), b"x")
    half = next((stand_in.folder / "landing" / "landing").glob("??/*")).with_suffix(".abcd.part")
    half.write_bytes(b"half")
    s3 = stand_in.start()
    assert len(listing(s3)) == 10_000
    assert not half.exists()


def test_it_takes_its_former_port_again_unless_that_is_taken(tmp_path: Path) -> None:
    one, two = StandIn(tmp_path / "one"), StandIn(tmp_path / "two")
    one.folder.mkdir()
    two.folder.mkdir()
    one.start()
    port = int(one.address.rpartition(":")[2])
    assert one.end(signal.SIGTERM) == 0
    one.start(port)
    assert one.address.endswith(f":{port}")
    two.start(port)
    assert not two.address.endswith(f":{port}")
    assert (one.end(signal.SIGTERM), two.end(signal.SIGTERM)) == (0, 0)


def test_the_queue_tells_of_each_upload_and_is_there_again_after_a_kill(stand_in: StandIn) -> None:
    for _ in range(2):
        s3 = stand_in.start()
        sqs = aws_client("sqs", stand_in.variables)
        queue = queue_url(stand_in.address)
        (test,) = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
        assert json.loads(test["Body"])["Event"] == "s3:TestEvent"
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=test["ReceiptHandle"])
        s3.put_object(Bucket="landing", Key="images/2026-01-05/Apple Red/é.jpg", Body=b"x")
        s3.put_object(Bucket="landing", Key="elsewhere/x.jpg", Body=b"x")
        s3.delete_object(Bucket="landing", Key="images/2026-01-05/none.jpg")
        assert unread_messages(stand_in.variables) == 1
        (message,) = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
        arrived = read_messages([message["Body"]], Settings.from_environment({"ORCHARD_WAREHOUSE": "/w"}).landing_zone)
        assert (arrived.batch_ids, arrived.counts) == (("2026-01-05",), {"upload": 1})
        assert unread_messages(stand_in.variables) == 1  # taken, and not deleted yet
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        assert unread_messages(stand_in.variables) == 0
        stand_in.end(signal.SIGKILL)
    assert {key for key, *_ in listing(stand_in.start())} == {"images/2026-01-05/Apple Red/é.jpg", "elsewhere/x.jpg"}
