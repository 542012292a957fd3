"""The region of a bucket, where the job's environment names none: as in the containers of a cluster."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from orchard_jobs import storage


class S3(BaseHTTPRequestHandler):
    """It refuses, and tells the region all the same."""

    asked: list[str] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(301 if "moved" in self.path else 403)
        if "silent" not in self.path:
            self.send_header("x-amz-bucket-region", "eu-west-3")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    storage._region_of.cache_clear()
    with HTTPServer(("127.0.0.1", 0), S3) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(storage, "_S3", f"http://127.0.0.1:{server.server_port}")
        S3.asked.clear()
        yield S3.asked
        server.shutdown()
    storage._region_of.cache_clear()


def region_of(bucket: str) -> object:
    return storage.s3_store(bucket).config["region"]


def test_a_bucket_is_asked_for_its_region_once(s3: list[str]) -> None:
    assert [region_of("lake"), region_of("lake"), region_of("moved")] == ["eu-west-3"] * 3
    assert s3 == ["/lake", "/moved"]
    assert region_of("silent") == "us-east-1"


def test_what_the_environment_names_is_not_asked_for(s3: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert region_of("lake") == "us-east-1"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert region_of("lake") == "ap-south-1"
    assert s3 == []


def test_without_a_network_the_first_request_for_an_object_tells(monkeypatch: pytest.MonkeyPatch, s3: list[str]) -> None:
    monkeypatch.setattr(storage, "_S3", "http://127.0.0.1:9")
    assert region_of("lake") == "us-east-1"
