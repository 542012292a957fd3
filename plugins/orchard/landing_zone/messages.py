"""Messages of S3 about uploads become batch keys. Values in, values out: it knows neither Airflow nor a queue.

A message is what S3 sends to SQS by itself, through SNS, or through EventBridge. Whatever else a queue may hold is counted
and never fails: one odd message must not hold up the others.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_plus

from orchard_jobs.contract.locations import has_prefix, image_uri, is_desktop_junk, is_folder_mark
from orchard_jobs.escaping import escaping_logger

from orchard.landing_zone.keys import batch_of
from orchard.outcomes import Done, Outcome, Skipped, use_case
from orchard.settings import LandingZoneSettings

log = escaping_logger(__name__)
# What came of one record: an `upload` is under a batch; every other kind is only counted.
Kind = Literal["upload", "deletion", "test", "other_event", "unreadable", "elsewhere", "folder", "junk", "no_batch"]
_ODD = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class UploadedBatches:
    """What a set of messages says.

    Attributes:
        batch_ids: every batch that got an upload, once, sorted.
        counts: records by kind.
        examples: up to three keys or message beginnings of each kind that is neither an upload nor a deletion, for the log.
    """

    batch_ids: tuple[str, ...]
    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Record:
    kind: Kind
    text: str
    batch_id: str | None = None


@use_case
def uploaded_batches(bodies: Sequence[str], zone: LandingZoneSettings) -> Outcome[tuple[str, ...]]:
    """Return the batches that got uploads, sorted. Skipped when there is none. What else the messages say is logged.

    Args:
        bodies: the messages' bodies, in any order, each any number of times.
        zone: where uploads count, and how a key names its batch.
    """
    found = read_messages(bodies, zone)
    log.info("messages=%s records=%s batches=%s", len(bodies), found.counts, found.batch_ids)
    for kind, shown in found.examples.items():
        log.warning("ignored kind=%s count=%s for example %s", kind, found.counts[kind], list(shown))
    if not found.batch_ids:
        return Skipped(f"none of the {len(bodies)} messages announces an upload to a batch: {found.counts}")
    return Done(found.batch_ids)


def read_messages(bodies: Iterable[str], zone: LandingZoneSettings) -> UploadedBatches:
    """Return the batches that got uploads, and what else the messages say.

    Args:
        bodies: the messages' bodies, in any order, each any number of times.
        zone: where uploads count, and how a key names its batch.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, tuple[str, ...]] = {}
    batch_ids = set()
    for body in bodies:
        for record in _records(body, zone):
            counts[record.kind] += 1
            if record.batch_id is not None:
                batch_ids.add(record.batch_id)
            elif record.kind != "deletion":
                shown = examples.get(record.kind, ())
                examples[record.kind] = (*shown, record.text[:200]) if len(shown) < 3 else shown
    return UploadedBatches(tuple(sorted(batch_ids)), dict(sorted(counts.items())), examples)


def _records(body: str, zone: LandingZoneSettings) -> Iterator[_Record]:
    try:
        message = json.loads(body)
        if isinstance(message, dict) and message.get("Type") == "Notification":  # wrapped by SNS
            message = json.loads(message["Message"])
        yield from list(_events(message, zone))
    except _ODD:
        yield _Record("unreadable", str(body))


def _events(message: Any, zone: LandingZoneSettings) -> Iterator[_Record]:
    if message.get("Event") == "s3:TestEvent":
        yield _Record("test", str(message.get("Bucket", "")))
    elif message.get("source") == "aws.s3":
        # EventBridge gives the key raw and names the event in words: `Object Created`.
        detail = message["detail"]
        event = message["detail-type"].replace("Object ", "Object")
        yield _judge(event, detail["bucket"]["name"], detail["object"]["key"], zone)
    else:
        for record in message["Records"]:
            try:
                s3 = record["s3"]
                event = record["eventName"].removeprefix("s3:")
                yield _judge(event, s3["bucket"]["name"], unquote_plus(s3["object"]["key"], errors="surrogateescape"), zone)
            except _ODD:
                yield _Record("unreadable", str(record))


def _judge(event: str, bucket: str, key: str, zone: LandingZoneSettings) -> _Record:
    if event.startswith(("ObjectRemoved", "ObjectDeleted", "LifecycleExpiration")):
        return _Record("deletion", key)
    if not event.startswith("ObjectCreated"):
        return _Record("other_event", f"{event} {key}")
    if bucket != zone.bucket or not has_prefix(key, zone.prefix):
        return _Record("elsewhere", image_uri(bucket, key))
    if is_folder_mark(key):
        return _Record("folder", key)
    if is_desktop_junk(key):
        return _Record("junk", key)
    batch_id = batch_of(key, zone)
    return _Record("upload" if batch_id else "no_batch", key, batch_id)
