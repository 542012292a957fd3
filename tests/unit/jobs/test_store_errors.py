"""Every fault of a store is told in Orchard's words: which file, what is wrong, what to do."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.errors import JobError
from orchard_jobs.images.sources import fetch
from orchard_jobs.storage import Warehouse
from orchard_jobs.store_errors import cause_of, explained, plain_words

REFUSALS = {
    "NoSuchBucket": (404, "its bucket is not there: check the bucket's name and AWS_ENDPOINT_URL"),
    "InvalidObjectState": (403, r"is archived \(storage class GLACIER or DEEP_ARCHIVE\) and has to be restored"),
    "ExpiredToken": (400, "the key or its session token has expired: log in again"),
    "InvalidAccessKeyId": (403, "the store refuses the key"),
    "AccessDenied": (403, "access denied"),
}
DISKS = {
    "full disk": "Generic LocalFileSystem error: Unable to create file /w/x: No space left on device (os error 28)",
    "read-only disk": "Generic LocalFileSystem error: Unable to create dir /w/x: Read-only file system (os error 30)",
    "rights": "Generic LocalFileSystem error: Unable to open file /w/x: Permission denied (os error 13)",
}


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An S3 that refuses every request with the code that the list holds."""
    codes: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = f'<?xml version="1.0"?><Error><Code>{codes[0]}</Code><Message>words of the store</Message></Error>'.encode()
            self.send_response(REFUSALS[codes[0]][0])
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "thing",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    Thread(target=server.serve_forever, daemon=True).start()
    yield codes
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_file_of_the_warehouse_is_told(refusal: list[str], code: str) -> None:
    refusal.append(code)
    with pytest.raises(JobError, match=f"^s3://bucket/w/runs/x.parquet .*{REFUSALS[code][1]}") as raised:
        Warehouse.at("s3://bucket/w").read_if_there("runs/x.parquet")
    assert "Debug source" not in str(raised.value)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_image_is_told(refusal: list[str], code: str) -> None:
    refusal.append(code)
    entry = Entry("s3://landing/day/1.jpg", "0" * 32, 1, "2026-01-01T00:00:00+00:00", None, "compute")
    wanted = "bucket of 's3://landing/day/1.jpg' is not there" if code == "NoSuchBucket" else REFUSALS[code][1]
    with pytest.raises(JobError, match=f"s3://landing/day/1.jpg.*{wanted}|{wanted}"):
        list(fetch([entry]))


@pytest.mark.parametrize("cause", DISKS)
def test_a_disk_s_fault_is_told(cause: str) -> None:
    error = OSError(DISKS[cause] + "\n\nDebug source:\nGeneric { store: ... }")
    assert cause_of(error) == cause
    assert "Debug" not in explained(error)


def test_what_is_absent_is_no_fault(tmp_path: Path) -> None:
    assert Warehouse.at(str(tmp_path)).read_if_there("nothing") is None


def test_libraries_insides_and_colours_are_left_out() -> None:
    error = ValueError("\x1b[31mKernel error\x1b[0m: cut short\n   0: <unknown>\n   1: start_thread\n")
    assert plain_words(error) == "Kernel error: cut short"
