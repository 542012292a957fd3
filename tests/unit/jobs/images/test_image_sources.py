"""Fetching: any key, only the object that was listed, in order, bounded, stubborn but not for ever."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from orchard_jobs.contract.locations import is_odd_key
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.errors import JobError
from orchard_jobs.images import sources
from orchard_jobs.images.sources import FetchLimits, TooLarge, Unread, Vanished, fetch, listed_as_before

ODD_KEYS = [
    "/lead.png",
    "a//b.png",
    "//",
    "a/./b.png",
    "a/../b.png",
    "..",
    "x/.",
    "trailing/",
    "control\x01.png",
    "tab\t.png",
    "delete\x7f.png",
]
PLAIN_KEYS = [
    "a b.jpg",
    "é日本😀.png",
    "a%2Fb.png",
    "%20",
    "a+b#c?d&e=f;g:h@i$j,k!.png",
    "back\\slash.png",
    "st*r~'\"`^{}[]<>|.png",
    "...",
    "a/.../b.png",
    "c1\x85.png",
    " lead and trail ",
    "a/ /b.png",
]
QUICK = FetchLimits(retries=2, retry_seconds=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """An S3 in a process of its own, on loopback."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point the AWS environment at an endpoint."""

    def point(endpoint: str) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")

    return point


@pytest.fixture
def bucket(moto: str, aws: Callable[[str], None]) -> Iterator[Any]:
    aws(moto)
    made = boto3.resource("s3", region_name="eu-west-1").Bucket("landing")
    made.create(CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield made
    for found in made.objects.all():  # one by one: a key with a control character fits in no list to delete
        found.delete()
    made.delete()


def put(bucket: Any, key: str, content: bytes) -> Entry:
    """Write an object and return its entry as a listing gives it."""
    etag = bucket.put_object(Key=key, Body=content).e_tag.strip('"')
    return entry(f"s3://{bucket.name}/{key}", etag, len(content))


def entry(uri: str, etag: str = "0" * 32, size_bytes: int = 1) -> Entry:
    return Entry(uri, etag, size_bytes, "2026-01-01T00:00:00+00:00", None, "compute")


def test_any_key_is_read_raw_and_in_order(bucket: Any) -> None:
    keys = [key for pair in zip(ODD_KEYS, PLAIN_KEYS, strict=False) for key in pair] + PLAIN_KEYS[len(ODD_KEYS) :]
    entries = [put(bucket, key, b"bytes of " + key.encode()) for key in keys]
    assert list(fetch(entries, QUICK)) == [(one, b"bytes of " + key.encode()) for one, key in zip(entries, keys, strict=True)]


@pytest.mark.parametrize("key", ["plain.png", "odd//key.png"])
def test_gone_and_changed_objects_have_vanished(bucket: Any, key: str) -> None:
    listed = put(bucket, key, b"first")
    assert list(fetch([listed], QUICK)) == [(listed, b"first")]
    put(bucket, key, b"second")
    assert list(fetch([listed], QUICK)) == [
        (listed, Vanished(f"changed since it was listed: its ETag is no longer {listed.etag}"))
    ]
    bucket.Object(key).delete()
    assert list(fetch([listed], QUICK)) == [(listed, Vanished("gone since it was listed"))]


def test_what_is_listed_as_before_is_told_from_what_changed(bucket: Any) -> None:
    """A folder whose name begins alike is no part of it; an object without an entry is nobody's concern."""
    keys = ["d/1/é b+c.png", "d/1/changed.png", "d/1/gone.png", "d/1x/other.png"]
    entries = [put(bucket, key, b"first") for key in keys]
    put(bucket, "d/1/more.png", b"x")
    uris = [one.image_uri for one in entries]
    assert listed_as_before(entries) == set(uris)
    put(bucket, keys[1], b"second")
    bucket.Object(keys[2]).delete()
    assert listed_as_before(entries) == {uris[0], uris[3]}
    assert listed_as_before(entries[:3]) == {uris[0]}
    assert listed_as_before(entries[1:2]) == listed_as_before([]) == set()


@pytest.mark.parametrize("odd", ["d/a//b.png", "d/a\x01.png", "d//", "/d/x.png", "d/../x.png"])
def test_a_key_that_obstore_refuses_hides_no_other(bucket: Any, odd: str) -> None:
    entries = [put(bucket, key, b"first") for key in ("d/plain.png", "d/a b.png", odd)]
    assert listed_as_before(entries) == {one.image_uri for one in entries}
    assert listed_as_before(entries[:2]) == {one.image_uri for one in entries[:2]}


@pytest.mark.parametrize("key", ["plain.png", "odd//key.png"])
def test_a_missing_bucket_is_a_job_fault(moto: str, aws: Callable[[str], None], key: str) -> None:
    aws(moto)
    with pytest.raises(JobError, match=rf"bucket of 's3://nowhere/{key}' is not there"):
        list(fetch([entry(f"s3://nowhere/{key}")], QUICK))


def test_which_keys_are_odd() -> None:
    assert all(is_odd_key(key) for key in [*ODD_KEYS, "", "/"])
    assert not any(is_odd_key(key) for key in PLAIN_KEYS)


@contextmanager
def server(answer: Callable[[str, int], tuple[int, bytes]]) -> Iterator[tuple[str, Counter[str]]]:
    """An HTTP server that answers a path's n-th request, counted from 1, and counts them."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked[self.path] += 1
            status, body = answer(self.path, asked[self.path])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.parametrize("key", ["plain.png", "odd//key.png"])
@pytest.mark.parametrize("status", [500, 503])
def test_a_store_that_keeps_failing_is_a_job_fault_after_the_retries(aws: Callable[[str], None], key: str, status: int) -> None:
    with server(lambda path, n: (status, b"<Error><Code>SlowDown</Code></Error>")) as (endpoint, asked):
        aws(endpoint)
        with pytest.raises(JobError, match=rf"cannot read 's3://landing/{key}'.*run the task again"):
            list(fetch([entry(f"s3://landing/{key}")], QUICK))
    assert sum(asked.values()) == QUICK.retries + 1


@pytest.mark.parametrize("key", ["plain.png", "odd//key.png"])
def test_a_store_that_recovers_is_read(aws: Callable[[str], None], key: str) -> None:
    with server(lambda path, n: (503, b"") if n < 3 else (200, b"whole")) as (endpoint, asked):
        aws(endpoint)
        listed = entry(f"s3://landing/{key}")
        assert list(fetch([listed], QUICK)) == [(listed, b"whole")]
    assert sum(asked.values()) == 3


@pytest.mark.parametrize("key", ["plain.png", "odd//key.png"])
@pytest.mark.parametrize("status", [401, 403])
def test_denied_access_is_a_job_fault_at_once(aws: Callable[[str], None], key: str, status: int) -> None:
    with server(lambda path, n: (status, b"<Error><Code>AccessDenied</Code></Error>")) as (endpoint, asked):
        aws(endpoint)
        with pytest.raises(JobError, match=rf"access denied to 's3://landing/{key}'.*s3:GetObject"):
            list(fetch([entry(f"s3://landing/{key}")], QUICK))
    assert sum(asked.values()) == 1


def test_an_object_over_the_size_limit_is_never_asked_for(aws: Callable[[str], None]) -> None:
    gigabyte = 1_000_000_000
    large = [entry(f"s3://landing/{number}.png", size_bytes=gigabyte) for number in range(10)]
    with server(lambda path, n: (200, b"small")) as (endpoint, asked):
        aws(endpoint)
        small = entry("s3://landing/small.png", size_bytes=FetchLimits().object_bytes)
        found = list(fetch([*large, small], QUICK))
    assert found == [*((one, TooLarge("1000000000 bytes, the limit is 256000000")) for one in large), (small, b"small")]
    assert dict(asked) == {"/landing/small.png": 1}


@pytest.mark.parametrize("key", ["plain.png", "odd//key.png"])
def test_nobody_there_is_a_job_fault(aws: Callable[[str], None], key: str) -> None:
    aws(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(JobError, match=rf"cannot read 's3://landing/{key}'"):
        list(fetch([entry(f"s3://landing/{key}")], QUICK))


def test_a_store_that_cannot_be_opened_is_a_job_fault() -> None:
    with pytest.raises(JobError, match=r"cannot open the store ftp://host.*'x\.png'"):
        list(fetch([entry("ftp://host/x.png")], QUICK))


def test_files_are_read_by_their_raw_names(tmp_path: Path) -> None:
    names = ["plain.png", "a b%20é#?.png", "sub dir/x.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    gone = ["none.png", "sub dir", "plain.png/x"]
    entries = [entry(f"file://{tmp_path}/{name}", "an ETag that no file has") for name in [*names, *gone]]
    *found, none, folder, below = list(fetch(entries))
    assert found == [(one, name.encode()) for one, name in zip(entries, names, strict=False)]
    assert {missing[1] for missing in (none, folder, below)} == {Vanished("gone since it was listed")}


class Store:
    """Stands for a store's reader: lets a test hold answers back, and sees what is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[str] = []
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        monkeypatch.setattr(sources, "_obstore_reader", lambda uri, limits: self.read)

    def read(self, wanted: Entry, key: str) -> bytes | Vanished:
        self.started.append(key)
        self.begun.release()
        self.gate.acquire()
        return key.encode()


@pytest.mark.parametrize(
    ("sizes", "limits", "ahead"),
    [
        ([1] * 20, FetchLimits(at_once=5), 5),
        ([10] * 20, FetchLimits(at_once=32, ahead_bytes=35), 3),
        ([100] * 20, FetchLimits(at_once=32, ahead_bytes=35), 1),
        ([10, 100, 10], FetchLimits(at_once=32, ahead_bytes=35), 1),
    ],
)
def test_no_more_is_under_way_than_the_limits_allow(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], limits: FetchLimits, ahead: int
) -> None:
    store = Store(monkeypatch)
    entries = [entry(f"s3://landing/{number}", size_bytes=size) for number, size in enumerate(sizes)]
    taken: list[bytes | Unread] = []
    taker = threading.Thread(target=lambda: taken.extend(content for _, content in fetch(entries, limits)))
    taker.start()
    try:
        for _ in range(ahead):
            assert store.begun.acquire(timeout=10)
        assert not store.begun.acquire(timeout=0.2)
        assert len(store.started) == ahead
    finally:
        store.gate.release(1000)
        taker.join(20)
    assert taken == [str(number).encode() for number in range(len(sizes))]


def test_stopping_early_starts_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    fetched = fetch([entry(f"s3://landing/{number}") for number in range(100)], FetchLimits(at_once=4))
    store.gate.release()
    try:
        next(fetched)
        fetched.close()
    finally:
        store.gate.release(1000)
    assert len(store.started) <= 5
