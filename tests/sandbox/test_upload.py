"""Uploads put what differs, and nothing else, into a real S3 stand-in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from orchard_sandbox.s3.landing import s3_environment
from orchard_sandbox.stack.batches import find_batches
from orchard_sandbox.stack.upload import s3_client, upload_batch


@pytest.fixture
def s3() -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = s3_client(s3_environment(f"http://{host}:{port}", "any"))
    client.create_bucket(Bucket="landing")
    yield client
    server.stop()


def upload(s3: Any, folder: Path) -> tuple[int, int]:
    (batch,) = find_batches(folder)
    uploaded = upload_batch(s3, batch)
    return uploaded, len(batch.files) - uploaded


def test_only_what_differs_is_uploaded(s3: Any, tmp_path: Path) -> None:
    label = tmp_path / "2026-01-05" / "Red Apple é#?%2F"
    label.mkdir(parents=True)
    for number in range(20):
        (label / f"{number}.jpg").write_bytes(b"%d" % number)
    assert upload(s3, tmp_path) == (20, 0)
    assert upload(s3, tmp_path) == (0, 20)
    (label / "3.jpg").write_bytes(b"X")  # as long as before
    (label / "new.jpg").write_bytes(b"")
    (label / "4.jpg").unlink()
    assert upload(s3, tmp_path) == (2, 18)
    keys = {item["Key"]: item["Size"] for item in s3.list_objects_v2(Bucket="landing")["Contents"]}
    assert len(keys) == 21  # what is only in the bucket stays
    assert keys["images/2026-01-05/Red Apple é#?%2F/new.jpg"] == 0
