"""Every fault of a store is told in Orchard's words: which file, what is wrong, what to do."""

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import obstore
import pytest
from obstore.exceptions import BaseError
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.errors import JobError
from orchard_jobs.images.sources import fetch
from orchard_jobs.storage import Warehouse, s3_store
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


# What an answer without words means, by its status.
STATUSES = {
    400: "refuses the request and does not say why: check the key, its session token and AWS_REGION",
    401: "the store refuses the log-in",
    403: "access denied: check the key",
    503: "the store answers that it cannot serve now",
}
# The same as delta-rs and boto3 write it, and a server that does not answer.
WORDS = {
    "403 Forbidden": "access denied",
    "400 Bad Request": "refuses the request",
    "503 Service Unavailable": "cannot serve now",
    "An error occurred (403) when calling the HeadObject operation: Forbidden": "access denied",
    "An error occurred (400) when calling the HeadObject operation: Bad Request": "refuses the request",
    "An error occurred (503) when calling the ListObjectsV2 operation (reached max retries: 4): ": "cannot serve now",
    "HTTP error\n   error sending request\n   client error (Connect)": "its server does not answer",
    'Could not connect to the endpoint URL: "http://127.0.0.1:1/b/x"': "its server does not answer",
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, str]]]:
    """An S3 that gives every request the one answer that the list holds: its status and its text."""
    wanted: list[tuple[int, str]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = wanted[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode() if self.command != "HEAD" else b"")

        do_PUT = do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answering)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "thing",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    Thread(target=server.serve_forever, daemon=True).start()
    yield wanted
    server.shutdown()
    server.server_close()


@pytest.fixture
def refusal(answers: list[tuple[int, str]]) -> Callable[[str], None]:
    """Let the S3 refuse every request with a code."""

    def refuse(code: str) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>words of the store</Message></Error>'
        answers.append((REFUSALS[code][0], text))

    return refuse


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_file_of_the_warehouse_is_told(refusal: Callable[[str], None], code: str) -> None:
    refusal(code)
    with pytest.raises(JobError, match=f"^s3://bucket/w/runs/x.parquet .*{REFUSALS[code][1]}") as raised:
        Warehouse.at("s3://bucket/w").read_if_there("runs/x.parquet")
    assert "Debug source" not in str(raised.value)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_image_is_told(refusal: Callable[[str], None], code: str) -> None:
    refusal(code)
    entry = Entry("s3://landing/day/1.jpg", "0" * 32, 1, "2026-01-01T00:00:00+00:00", None, "compute")
    wanted = "bucket of 's3://landing/day/1.jpg' is not there" if code == "NoSuchBucket" else REFUSALS[code][1]
    with pytest.raises(JobError, match=f"s3://landing/day/1.jpg.*{wanted}|{wanted}"):
        list(fetch([entry]))


@pytest.mark.parametrize("cause", DISKS)
def test_a_disk_s_fault_is_told(cause: str) -> None:
    error = OSError(DISKS[cause] + "\n\nDebug source:\nGeneric { store: ... }")
    assert cause_of(error) == cause
    assert "Debug" not in explained(error)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_without_words_is_told(answers: list[tuple[int, str]], status: int) -> None:
    answers.append((status, ""))
    store = s3_store("bucket", "w", {"max_retries": 0})
    for call in (obstore.get, obstore.head):
        with pytest.raises(BaseError) as raised:
            call(store, "runs/x.parquet")
        assert STATUSES[status] in explained(raised.value)


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        for name, value in (("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}"), ("AWS_REGION", "us-east-1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "thing")
        with pytest.raises(BaseError) as raised:
            obstore.get(s3_store("bucket", "w", {"max_retries": 0}), "runs/x.parquet")
    assert "its server does not answer: check that it runs" in explained(raised.value)


@pytest.mark.parametrize("text", WORDS)
def test_what_delta_and_boto_say_is_told_alike(text: str) -> None:
    assert WORDS[text] in explained(OSError(f"Kernel error -> Generic S3 error\n   {text}"))


def test_what_is_absent_is_no_fault(tmp_path: Path) -> None:
    assert Warehouse.at(str(tmp_path)).read_if_there("nothing") is None


def test_libraries_insides_and_colours_are_left_out() -> None:
    error = ValueError("\x1b[31mKernel error\x1b[0m: cut short\n   0: <unknown>\n   1: start_thread\n")
    assert plain_words(error) == "Kernel error: cut short"
