"""A bucket whose every listing and every read is a call of the store, and what it held at each moment."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote_plus

from orchard.landing_zone.listing import ListedObject
from orchard_jobs.contract.locations import split_image_uri

from support.listed_bucket import ENCRYPTED, listing
from support.simulation.store_calls import StoreCalls

Contents = dict[str, bytes]


@dataclass
class SimulatedBucket(Mapping[str, bytes]):
    """A bucket, as jobs read it.

    Attributes:
        calls: where the calls pass.
        contents: what it holds, by key.
        past: what it held before each change, and when that was.
    """

    calls: StoreCalls
    contents: Contents = field(default_factory=dict)
    past: list[tuple[datetime, Contents]] = field(default_factory=list)

    def __getitem__(self, key: str) -> bytes:
        return self.calls.read(f"fetch {key}", lambda: self.contents[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.contents)

    def __len__(self) -> int:
        return len(self.contents)

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.past.append((self.calls.clock.of_store, dict(self.contents)))
        self.contents[key] = content

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.past.append((self.calls.clock.of_store, dict(self.contents)))
        self.contents.pop(key, None)

    def below(self, prefix: str) -> Contents:
        """Return the contents of the keys with a prefix."""
        return {key: content for key, content in self.contents.items() if key.startswith(prefix)}

    def listed(self, prefix: str) -> Contents:
        """Return what a listing shows; a late one shows what was there some changes ago."""
        found = self.calls.list(f"list s3 {prefix}", lambda: self.contents, self._as_of)
        return {key: content for key, content in found.items() if key.startswith(prefix)}

    def _as_of(self, moment: datetime) -> Contents:
        return next((contents for at, contents in self.past if at > moment), self.contents)


def message_of(bucket: str, key: str) -> str:
    """Return S3's message of an upload."""
    s3 = {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}
    return json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": s3}]})


@dataclass
class SimulatedLandingZone:
    """A landing zone as a plan lists it.

    Attributes:
        bucket: the bucket.
        before_listing: called before each listing.
        tells_encryption: whether the store answers which objects are encrypted.
        shown: what the last listing showed.
    """

    bucket: SimulatedBucket
    before_listing: Callable[[], None] = lambda: None
    tells_encryption: bool = False
    shown: Contents = field(default_factory=dict)

    def list(self, prefix: str) -> list[ListedObject]:
        self.before_listing()
        self.shown = self.bucket.listed(prefix)
        return listing(self.shown)

    def has_false_md5(self, image_uri: str) -> bool:
        return self.tells_encryption and self.bucket[split_image_uri(image_uri)[1]].startswith(ENCRYPTED)
