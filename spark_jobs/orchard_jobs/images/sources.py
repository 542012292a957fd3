"""Fetch the bytes of a manifest's entries, many at once and ahead of their consumer. Knows nothing of pixels.

A `source` is any iterable of (entry, bytes or `Unread`); `fetch` is the one for platforms whose workers have a network.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import obstore
from obstore.exceptions import NotFoundError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import from_url

from orchard_jobs.contract.locations import S3Location, below, common_folder, image_uri, is_odd_key, is_s3, split_image_uri
from orchard_jobs.contract.manifest import OBJECT_LIMIT, Entry
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.errors import JobError
from orchard_jobs.storage import s3_client, s3_store
from orchard_jobs.store_errors import cause_of, explained, plain_words


@dataclass(frozen=True)
class Unread:
    """An object whose bytes were not read: the quarantine's reason, and in words."""

    reason: ClassVar[Reason]
    message: str


class Vanished(Unread):
    """An object that is gone, or is no longer the one that was listed."""

    reason = Reason.VANISHED


class TooLarge(Unread):
    """An object that is larger, as listed, than may be fetched."""

    reason = Reason.OVER_OBJECT_LIMIT


Fetched = tuple[Entry, bytes | Unread]
_ReadObject = Callable[[Entry, str], bytes | Unread]


@dataclass(frozen=True)
class FetchLimits:
    """How far and how stubbornly to fetch ahead.

    Attributes:
        at_once: objects under way or waiting to be taken.
        ahead_bytes: their listed bytes together; one object above it is fetched alone.
        retries: how often one request is repeated after a network error, a 5xx answer or throttling.
        retry_seconds: it is not repeated after so long.
        object_bytes: an object that is listed as larger is not fetched.
    """

    at_once: int = 32
    ahead_bytes: int = 64 * 1024 * 1024
    retries: int = 10
    retry_seconds: float = 180.0
    object_bytes: int = OBJECT_LIMIT


def fetch(entries: Iterable[Entry], limits: FetchLimits | None = None) -> Generator[Fetched, None, None]:
    """Yield each entry with its object's bytes, or with why they were not read, in the order of the entries.

    Objects are read only as they were listed: with If-Match on the ETag, save from `file:`, where an ETag is not kept.

    Raises:
        JobError: access is denied, the bucket is not there, or the store still fails after the last try.
    """
    bounds = limits or FetchLimits()
    readers = _Readers(bounds)
    ahead: deque[tuple[Entry, Future[bytes | Unread]]] = deque()
    ahead_bytes = 0
    threads = ThreadPoolExecutor(bounds.at_once, thread_name_prefix="fetch")
    try:
        for entry in entries:
            size_bytes = _bytes_to_fetch(entry, bounds)
            while ahead and (len(ahead) >= bounds.at_once or ahead_bytes + size_bytes > bounds.ahead_bytes):
                first, result = ahead.popleft()
                yield first, result.result()
                ahead_bytes -= _bytes_to_fetch(first, bounds)
            store, key = split_image_uri(entry.image_uri)
            read = readers.of(store, key) if size_bytes == entry.size_bytes else _refuse(bounds)
            ahead.append((entry, threads.submit(read, entry, key)))
            ahead_bytes += size_bytes
        while ahead:
            first, result = ahead.popleft()
            yield first, result.result()
    finally:
        # Not waited for: a request that is being retried would hold up the error that ended this.
        threads.shutdown(wait=False)


def _bytes_to_fetch(entry: Entry, limits: FetchLimits) -> int:
    return entry.size_bytes if entry.size_bytes <= limits.object_bytes else 0


def _refuse(limits: FetchLimits) -> _ReadObject:
    return lambda entry, key: TooLarge(f"{entry.size_bytes} bytes, the limit is {limits.object_bytes}")


def listed_as_before(entries: Sequence[Entry]) -> frozenset[str]:
    """Return the URIs of the entries whose objects are now listed with the ETag that they were listed with.

    From `file:`, where an ETag is not kept, those of all entries.
    """
    folder = common_folder(entry.image_uri for entry in entries)
    if not is_s3(folder):
        return frozenset(entry.image_uri for entry in entries)
    bucket, prefix = S3Location.parse(folder).bucket, S3Location.parse(folder).key
    # Not by obstore: it fails on a whole listing for one key that it refuses.
    pages = _boto_client(bucket, FetchLimits()).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    items = (item for page in pages for item in page.get("Contents", ()))
    listed = {image_uri(bucket, item["Key"]): item["ETag"].strip('"') for item in items}
    return frozenset(entry.image_uri for entry in entries if listed.get(entry.image_uri) == entry.etag)


class _Readers:
    """One reader a store and kind of key, made when first needed."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._made: dict[tuple[str, bool], _ReadObject] = {}

    def of(self, store: str, key: str) -> _ReadObject:
        wanted = (store, is_s3(store) and is_odd_key(key))
        if wanted not in self._made:
            try:
                self._made[wanted] = self._make(*wanted)
            except Exception as error:
                raise JobError(
                    f"cannot open the store {store} for its first image, key {key!r}: {error}: "
                    "check the region, the endpoint and the credentials of the workers"
                ) from error
        return self._made[wanted]

    def _make(self, store: str, is_odd: bool) -> _ReadObject:
        if store == "file:///":
            return _read_file
        return _boto_reader(store, self._limits) if is_odd else _obstore_reader(store, self._limits)


def _open_store(store_uri: str, limits: FetchLimits) -> Any:
    retries: Any = {"max_retries": limits.retries, "retry_timeout": timedelta(seconds=limits.retry_seconds)}
    if is_s3(store_uri):
        return s3_store(S3Location.parse(store_uri).bucket, retry_config=retries)
    return from_url(store_uri, retry_config=retries)


def _read_file(entry: Entry, key: str) -> bytes | Unread:
    # obstore reads local files, too, at six times the cost for a small one.
    try:
        with open(below("/", key), "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return _gone()
    except PermissionError as error:
        raise _denied(entry, error) from error
    except (OSError, ValueError) as error:
        raise _failed(entry, error) from error


def _obstore_reader(store_uri: str, limits: FetchLimits) -> _ReadObject:
    store = _open_store(store_uri, limits)

    def read(entry: Entry, key: str) -> bytes | Unread:
        try:
            return bytes(obstore.get(store, key, options={"if_match": entry.etag}).bytes())
        except PreconditionError:
            return _changed(entry)
        except (NotFoundError, FileNotFoundError) as error:
            if "<Code>NoSuchBucket</Code>" in str(error):
                raise _no_bucket(entry, error) from error
            return _gone()
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise _denied(entry, error) from error
        except Exception as error:
            raise _failed(entry, error) from error

    return read


def _boto_reader(store_uri: str, limits: FetchLimits) -> _ReadObject:
    from botocore.exceptions import ClientError

    bucket = S3Location.parse(store_uri).bucket
    client = _boto_client(bucket, limits)

    def read(entry: Entry, key: str) -> bytes | Unread:
        try:
            content: bytes = client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{entry.etag}"')["Body"].read()
            return content
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if error.response["Error"]["Code"] == "NoSuchBucket":
                raise _no_bucket(entry, error) from error
            if status == 404:
                return _gone()
            if status == 412:
                return _changed(entry)
            raise (_denied if status in (401, 403) else _failed)(entry, error) from error
        except Exception as error:
            raise _failed(entry, error) from error

    return read


def _boto_client(bucket: str, limits: FetchLimits) -> Any:
    """Return a client for what obstore refuses."""
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": limits.retries + 1}
    return s3_client(bucket, Config(retries=retries, max_pool_connections=limits.at_once))


def _gone() -> Vanished:
    return Vanished("gone since it was listed")


def _changed(entry: Entry) -> Vanished:
    return Vanished(f"changed since it was listed: its ETag is no longer {entry.etag}")


def _no_bucket(entry: Entry, error: Exception) -> JobError:
    return JobError(
        f"the bucket of {entry.image_uri!r} is not there: {plain_words(error)}: check its name and the workers' AWS_ENDPOINT_URL"
    )


def _denied(entry: Entry, error: Exception) -> JobError:
    if cause_of(error) in ("archived", "expired key", "unknown key"):
        return JobError(f"{entry.image_uri!r} {explained(error)}")
    return JobError(
        f"access denied to {entry.image_uri!r}: {plain_words(error)}: let the job's role read (s3:GetObject) every listed image"
    )


def _failed(entry: Entry, error: Exception) -> JobError:
    if cause_of(error) in ("archived", "expired key", "unknown key"):
        return JobError(f"{entry.image_uri!r} {explained(error)}")
    return JobError(
        f"cannot read {entry.image_uri!r}: {plain_words(error)}: nothing is published; run the task again once the store answers"
    )
