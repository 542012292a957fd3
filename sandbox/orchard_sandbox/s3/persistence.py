"""Makes the objects of moto's S3 outlive its process, and sends a message for each upload under the landing prefix.

After each request, and before its answer is sent, every object that the request changed is on disk; a start loads them
again with their ETags and times.
"""

import inspect
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from moto.moto_server.utilities import RegexConverter
from moto.s3.models import FakeKey, S3Backend
from moto.sqs.models import Queue, sqs_backends
from orchard_jobs.contract.locations import prefix_of

from orchard_sandbox.s3.landing import ACCOUNT, BUCKET, PREFIX, QUEUE, REGION
from orchard_sandbox.s3.objects import ObjectFolder, StoredObject


class Persistence:
    """Notes which objects a request changes in moto's memory, and stores them before the answer is sent."""

    def __init__(self, backend: S3Backend, folder: ObjectFolder) -> None:
        self._backend = backend
        self._folder = folder
        self._request = threading.local()
        # Two requests for one key end in the order in which they write its file: each writes what memory holds by then.
        self._locks = [threading.Lock() for _ in range(64)]

    def load(self) -> None:
        """Fill moto's memory from the disk, and make the landing bucket when it is not there."""
        self._folder.remove_half_written()
        for bucket in {*self._folder.buckets(), BUCKET}:
            self._backend.create_bucket(bucket, REGION)
            self._folder.add_bucket(bucket)
            for stored, content in map(self._folder.read, self._folder.files(bucket)):
                key = self._backend.put_object(bucket, stored.key, content, etag=stored.etag)
                key.last_modified = datetime.fromisoformat(stored.last_modified)
                key.set_metadata(stored.metadata)

    def watch(self) -> None:
        """Note every change: every kind of PUT, copy, multipart upload and DELETE calls one of these three methods."""
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
                self._folder.write(bucket_name, _stored_form(key), key.value)
            else:
                self._folder.remove(bucket_name, key_name)


def _stored_form(key: FakeKey) -> StoredObject:
    metadata = {name: value for name, value in key.metadata.items() if isinstance(value, str)}
    return StoredObject(key.name, key.etag.strip('"'), key.last_modified.isoformat(), metadata)


def take_every_key() -> None:
    """Let moto route keys with line breaks, which S3 allows: a dot in its patterns does not match one."""
    method = "__init__"
    original = getattr(RegexConverter, method)

    def init(converter: RegexConverter, url_map: Any, *items: Any) -> None:
        original(converter, url_map, *items)
        converter.regex = f"(?s:{converter.regex})"

    setattr(RegexConverter, method, init)


def make_queue(backend: S3Backend) -> None:
    """Make the uploads' queue and have the landing bucket tell it of each upload: moto forgets both with its process.

    moto counts all messages again for each one that it sends or receives, thousands of times the work of either. The counts are
    kept cheap here, and stay right for a queue without delays: a message that was received is not visible until it is deleted.
    """
    for name, count in (
        ("approximate_number_of_messages", lambda queue: len(queue._messages) - len(queue.pending_messages)),
        ("approximate_number_of_messages_not_visible", lambda queue: len(queue.pending_messages)),
        ("approximate_number_of_messages_delayed", lambda queue: 0),
    ):
        setattr(Queue, name, property(count))
    queue = sqs_backends[ACCOUNT][REGION].create_queue(QUEUE, {})
    prefix = {"S3Key": {"FilterRule": [{"Name": "prefix", "Value": prefix_of(PREFIX)}]}}
    configuration = {"Queue": queue.queue_arn, "Event": ["s3:ObjectCreated:*"], "Filter": prefix}
    backend.put_bucket_notification_configuration(BUCKET, {"QueueConfiguration": [configuration]})
