"""A landing zone in memory, with the odd ETags that stores give."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from orchard.landing_zone.listing import ListedObject
from orchard_jobs.contract.locations import split_image_uri

OPAQUE = b"opaque"
# Followed by what tells one upload from another, a space, and the bytes: SSE-KMS and SSE-C give each its own ETag.
ENCRYPTED = b"encrypted "


def etag_of(content: bytes) -> str:
    """Return an object's ETag: its MD5; for `opaque` one as of a multipart upload; for `encrypted` one that looks like an MD5."""
    suffix = "-2" if content.startswith(OPAQUE) else ""
    return hashlib.md5(content.removeprefix(OPAQUE)).hexdigest() + suffix


def bytes_of(content: bytes) -> bytes:
    """Return what is read of an object: an opaque or an encrypted one holds what an MD5 one may hold, too."""
    return content.removeprefix(ENCRYPTED).partition(b" ")[2] if content.startswith(ENCRYPTED) else content.removeprefix(OPAQUE)


def listing(bucket: Mapping[str, bytes]) -> list[ListedObject]:
    """Return a bucket's listing; every object came at the same moment."""
    uploaded_at = datetime(2026, 1, 1, tzinfo=UTC)
    return [ListedObject(key, etag_of(content), len(bytes_of(content)), uploaded_at) for key, content in sorted(bucket.items())]


@dataclass(frozen=True)
class ListedBucket:
    """A bucket as a plan lists it.

    Attributes:
        bucket: contents by key.
        before_listing: called before each listing.
        tells_encryption: whether the store answers which objects are encrypted.
    """

    bucket: Mapping[str, bytes]
    before_listing: Callable[[], None] = lambda: None
    tells_encryption: bool = True

    def list(self, prefix: str) -> list[ListedObject]:
        self.before_listing()
        return listing({key: content for key, content in self.bucket.items() if key.startswith(prefix)})

    def has_false_md5(self, image_uri: str) -> bool:
        return self.tells_encryption and self.bucket[split_image_uri(image_uri)[1]].startswith(ENCRYPTED)
