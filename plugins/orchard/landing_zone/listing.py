"""What the landing zone lists: objects page by page, and as columns for a comparison. Knows nothing of what is published."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
from botocore.exceptions import ClientError
from botocore.utils import parse_timestamp
from orchard_jobs.contract.locations import image_uri, is_desktop_junk, is_folder_mark, label_of, split_image_uri
from orchard_jobs.errors import JobError
from orchard_jobs.escaping import escaping_logger

log = escaping_logger(__name__)
_OBJECTS_PER_CHUNK = 10_000
LISTED = pa.schema(
    [
        ("image_uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("uploaded_at", pa.timestamp("us", "UTC")),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object under a batch, as the store lists it."""

    key: str
    etag: str
    size_bytes: int
    uploaded_at: datetime


@dataclass
class JunkTally:
    """The objects that listings ignored because desktop systems create them: how many, and the first key."""

    objects: int = 0
    example: str = ""

    def add(self, key: str) -> None:
        """Count an object."""
        self.example = self.example or key
        self.objects += 1


class LandingZone(Protocol):
    """Where batches land, as a plan asks for it."""

    def list(self, prefix: str) -> Iterable[ListedObject]:
        """Return every image object below a key prefix, in any order."""

    def has_false_md5(self, image_uri: str) -> bool:
        """Tell whether an object's ETag looks like the MD5 of its bytes but is not."""


@dataclass(frozen=True)
class S3LandingZone:
    """A landing zone in S3.

    Attributes:
        client: a boto3 S3 client.
        bucket: the landing bucket.
        junk: counts what all listings ignored.
    """

    client: Any
    bucket: str
    junk: JunkTally = field(default_factory=JunkTally)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield every image object below a key prefix, page by page; log how much desktop junk was ignored."""
        before = self.junk.objects
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            yield from objects_of(page, self.junk)
        if self.junk.objects > before:
            left_out = self.junk.objects - before
            log.info("ignored %s files below %s that desktop systems create, such as %r", left_out, prefix, self.junk.example)

    def has_false_md5(self, image_uri: str) -> bool:
        """Tell whether an object is encrypted with a KMS key: its ETag then looks like an MD5 but is not.

        False, with a warning, where that cannot be determined: without `s3:GetObject`, or when the object has gone.
        """
        _, key = split_image_uri(image_uri)
        try:
            found = self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("403", "404"):
                raise
            log.warning("whether %s is under SSE-KMS cannot be determined; treating its ETag as an MD5: %s", image_uri, error)
            return False
        return str(found.get("ServerSideEncryption", "")).startswith("aws:kms")


def objects_of(page: Mapping[str, Any], junk: JunkTally | None = None) -> Iterator[ListedObject]:
    """Yield the image objects of one page of a listing; keys that end in `/` are none, nor is desktop junk, which is counted."""
    for item in page.get("Contents", ()):
        if is_desktop_junk(item["Key"]):
            (junk or JunkTally()).add(item["Key"])
        elif not is_folder_mark(item["Key"]):
            etag = item["ETag"].strip('"')
            if not etag:
                raise JobError(
                    f"the object {item['Key']!r} has no ETag, so changes cannot be detected: a copy or a restore lost it "
                    "(versitygw keeps it in extended attributes): restore it with them, or upload the object again"
                )
            yield ListedObject(item["Key"], etag, item["Size"], item["LastModified"].astimezone(UTC))


def as_columns(listed: Iterable[ListedObject], bucket: str, batch_prefix: str) -> pa.Table:
    """Return a listing as columns (`LISTED`); Python objects live for 10,000 of them at a time."""
    objects = iter(listed)
    chunks = []
    while chunk := list(islice(objects, _OBJECTS_PER_CHUNK)):
        columns = [
            [image_uri(bucket, item.key) for item in chunk],
            [item.etag for item in chunk],
            [item.size_bytes for item in chunk],
            [item.uploaded_at for item in chunk],
            [label_of(item.key, batch_prefix) for item in chunk],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LISTED, strict=True)]
        chunks.append(pa.RecordBatch.from_arrays(arrays, schema=LISTED))
    return pa.Table.from_batches(chunks, LISTED).combine_chunks()


def with_quick_times(client: Any) -> Any:
    """Let a boto3 client parse ISO times by the standard library, and others as botocore does; return the client.

    botocore parses each listed object's time with dateutil, which guesses the format. That takes three quarters of a listing's
    time. Its parsers accept another function, but no client offers a way to choose it, hence the private attributes.
    """
    client._response_parser._timestamp_parser = _parse_time
    return client


def _parse_time(value: Any) -> Any:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return parse_timestamp(value)
    return found if found.tzinfo else parse_timestamp(value)
