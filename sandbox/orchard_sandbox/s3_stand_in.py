"""The S3 stand-in: moto's server as a process of its own, on loopback, whose objects outlive it, and a queue that does not.

The queue gets a message of each upload under the landing prefix, from the server's first request on. With `--spark-submit` the
server is EMR Serverless and EMR, too, and truly runs their jobs.

After each request, and before its answer is sent, every object that the request changed is on disk; a start loads them
again with their ETags and times. Any credentials are accepted. It knows nothing of batches or images.

A process of its own because delta-rs and moto in one process deadlock: delta-rs holds the GIL while it waits.
"""

import argparse
import functools
import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.moto_server.utilities import RegexConverter
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import FakeKey, S3Backend, s3_backends
from moto.sqs.models import Queue, sqs_backends
from werkzeug.serving import BaseWSGIServer, make_server

from orchard_sandbox import emr_serverless_api
from orchard_sandbox.emr import Emr
from orchard_sandbox.emr_serverless import EmrServerless
from orchard_sandbox.faults import Faults, aws_operation, aws_refusal
from orchard_sandbox.job_pages import add_pages
from orchard_sandbox.job_runs import Pace
from orchard_sandbox.landing import ACCOUNT, BUCKET, PREFIX, QUEUE, REGION
from orchard_sandbox.objects_on_disk import ObjectFolder, StoredObject
from orchard_sandbox.submitted_job import Machine


class Persistence:
    """Notes which objects a request changes in moto's memory, and brings their files up to date at its end."""

    def __init__(self, backend: S3Backend, folder: ObjectFolder) -> None:
        self._backend = backend
        self._folder = folder
        self._request = threading.local()
        # Two requests for one key end in the order in which they write its file: each writes what memory holds by then.
        self._locks = [threading.Lock() for _ in range(64)]

    def load(self) -> None:
        """Fill moto's memory from the disk, and make the landing bucket when it is not there."""
        for bucket in {*self._folder.buckets(), BUCKET}:
            self._backend.create_bucket(bucket, REGION)
            self._folder.add_bucket(bucket)
            for stored, content in self._folder.read_all(bucket):
                key = self._backend.put_object(bucket, stored.key, content, etag=stored.etag)
                key.last_modified = datetime.fromisoformat(stored.last_modified)
                key.set_metadata(stored.metadata)

    def watch(self) -> None:
        """Have moto tell which objects change: every kind of PUT, copy, multipart and DELETE ends in one of these three."""
        for name in ("put_object", "delete_object", "create_bucket"):
            setattr(S3Backend, name, self._noting(getattr(S3Backend, name)))

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def note(*args: Any, **named: Any) -> Any:
            given = signature.bind(*args, **named).arguments
            self._changed().add((given["bucket_name"], given.get("key_name", "")))
            return original(*args, **named)

        return note

    def _changed(self) -> set[tuple[str, str]]:
        changed: set[tuple[str, str]] = self._request.__dict__.setdefault("changed", set())
        return changed

    def wrap(self, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application that stores before it answers."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            self._changed().clear()
            response = application(environ, start_response)
            for bucket, key in self._changed():
                self._store(bucket, key)
            return response

        return answer

    def _store(self, bucket_name: str, key_name: str) -> None:
        bucket = self._backend.buckets.get(bucket_name)
        if bucket is None:
            return
        if not key_name:
            self._folder.add_bucket(bucket_name)
            return
        with self._locks[hash((bucket_name, key_name)) % len(self._locks)]:
            key = bucket.keys.get(key_name)
            if isinstance(key, FakeKey):
                self._folder.write(bucket_name, stored_form(key), key.value)
            else:
                self._folder.remove(bucket_name, key_name)


def stored_form(key: FakeKey) -> StoredObject:
    """Return what is kept of an object in moto's memory."""
    metadata = {name: value for name, value in key.metadata.items() if isinstance(value, str)}
    return StoredObject(key.name, key.etag.strip('"'), key.last_modified.isoformat(), metadata)


def take_every_key() -> None:
    """Have moto route keys with line breaks, which S3 allows: the dot of its patterns ends at one."""
    method = "__init__"
    original = getattr(RegexConverter, method)

    def init(converter: RegexConverter, url_map: Any, *items: Any) -> None:
        original(converter, url_map, *items)
        converter.regex = f"(?s:{converter.regex})"

    setattr(RegexConverter, method, init)


def make_queue(backend: S3Backend) -> None:
    """Make the uploads' queue and have the landing bucket tell it of each upload: moto forgets both with its process.

    moto counts all messages anew for each one that it sends or receives, thousands of times the work of either. The counts are
    kept cheap here, and stay right for a queue without delays: a message that was received is not visible until it is deleted.
    """
    for name, count in (
        ("approximate_number_of_messages", lambda queue: len(queue._messages) - len(queue.pending_messages)),
        ("approximate_number_of_messages_not_visible", lambda queue: len(queue.pending_messages)),
        ("approximate_number_of_messages_delayed", lambda queue: 0),
    ):
        setattr(Queue, name, property(count))
    queue = sqs_backends[ACCOUNT][REGION].create_queue(QUEUE, {})
    prefix = {"S3Key": {"FilterRule": [{"Name": "prefix", "Value": f"{PREFIX}/"}]}}
    told = {"Queue": queue.queue_arn, "Event": ["s3:ObjectCreated:*"], "Filter": prefix}
    backend.put_bucket_notification_configuration(BUCKET, {"QueueConfiguration": [told]})


@dataclass(frozen=True)
class Jobs:
    """How to run the jobs of EMR Serverless and of EMR.

    Attributes:
        spark_submit: the command.
        python: runs drivers and workers.
        folder: keeps applications, clusters, their jobs and the logs.
        pace: how fast time goes for them.
    """

    spark_submit: Path
    python: Path
    folder: Path
    pace: Pace


def start_server(folder: Path, port: int, jobs: Jobs | None = None) -> BaseWSGIServer:
    """Return a listening server with everything that the folder holds; `port` 0 takes a free one."""
    backend = s3_backends[ACCOUNT]["aws"]
    persistence = Persistence(backend, ObjectFolder(folder))
    persistence.load()
    persistence.watch()
    take_every_key()
    make_queue(backend)  # after the load, which is no upload
    listener = listen(port)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if jobs is None:
        application = persistence.wrap(DomainDispatcherApplication(create_backend_app))
    else:
        faults = Faults()
        service = EmrServerless(jobs.folder, Machine(jobs.spark_submit, jobs.python, address), jobs.pace, faults)
        emr_serverless_api.install(service)
        emr = Emr(jobs.folder / "clusters", Machine(jobs.spark_submit, jobs.python, address), jobs.pace, faults)
        application = persistence.wrap(DomainDispatcherApplication(functools.partial(create_with_emr, emr)))
        application = faults.wrap(add_pages(application, service.find_run), aws_operation, aws_refusal)
    with listener:  # the server takes a copy of the descriptor
        number = listener.getsockname()[1]
        return make_server(
            "127.0.0.1", number, application, threaded=True, request_handler=MotoRequestHandler, fd=listener.fileno()
        )


def create_with_emr(emr: Emr, service: Any) -> Any:
    """Return the application of a service, as moto makes it at the service's first request."""
    if service == "emr":
        # With moto's model of EC2, whose import is half of the stand-in's start.
        from orchard_sandbox import emr_api

        emr_api.install(emr)
    return create_backend_app(service)


def listen(port: int) -> socket.socket:
    """Return a listening socket; another port's when somebody has taken this one."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=128)


def write_address(path: Path, address: str) -> None:
    """Tell the address to who started this process; it is there whole or not at all."""
    fresh = path.with_suffix(".part")
    fresh.write_text(address)
    os.replace(fresh, path)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="where the objects lie")
    parser.add_argument("--address-file", type=Path, required=True, help="written once the server listens")
    parser.add_argument("--port", type=int, default=0, help="tried first")
    parser.add_argument("--spark-submit", type=Path, help="runs the jobs of EMR Serverless and EMR, which are off without it")
    parser.add_argument("--python", type=Path, help="runs the jobs' drivers and workers: it stands for that of their image")
    parser.add_argument("--work", type=Path, help="where applications, job runs and their logs are kept")
    parser.add_argument("--state-seconds", type=float, default=Pace.state_seconds, help="how long a state on the way lasts")
    parser.add_argument("--minute-seconds", type=float, default=Pace.minute_seconds, help="how long a minute of a time-out lasts")
    arguments = parser.parse_args()
    if arguments.spark_submit and not (arguments.python and arguments.work):
        parser.error("--spark-submit needs --python and --work")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request would fill the disk
    server = start_server(arguments.folder, arguments.port, _jobs(arguments) if arguments.spark_submit else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the serving loop, which this very thread runs.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    write_address(arguments.address_file, f"http://127.0.0.1:{server.port}")
    server.serve_forever()


def _jobs(arguments: argparse.Namespace) -> Jobs:
    pace = Pace(arguments.state_seconds, arguments.minute_seconds)
    return Jobs(arguments.spark_submit.absolute(), arguments.python.absolute(), arguments.work.absolute(), pace)


if __name__ == "__main__":
    main()
