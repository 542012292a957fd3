"""Messages become batch keys: whatever a queue may hold is counted, and only a good key starts a batch."""

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchard.landing_zone.keys import batch_of, checked_partition_key
from orchard.landing_zone.messages import read_messages
from orchard.settings import Settings
from orchard_jobs.errors import ConfigurationError

LANDING_ZONE = Settings.from_environment({"ORCHARD_WAREHOUSE": "/w"}).landing_zone
DAY = "images/2026-01-05/"


def record(key: str, event: str = "ObjectCreated:Put", bucket: str = "landing") -> dict[str, Any]:
    return {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), "size": 1}}}


def body(*records: dict[str, Any]) -> str:
    return json.dumps({"Records": list(records)})


def event_bridge(key: str, kind: str = "Object Created") -> str:
    detail = {"bucket": {"name": "landing"}, "object": {"key": key}}
    return json.dumps({"source": "aws.s3", "detail-type": kind, "detail": detail})


def sns(message: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "t", "Message": message})


def test_encoded_keys_are_read_as_they_were_uploaded() -> None:
    message = body(record(f"{DAY}Apple Red/é + 100%.jpg"))
    assert "%2F" in message
    assert "Apple+Red" in message
    arrived = read_messages([message], LANDING_ZONE)
    assert (arrived.batch_ids, arrived.counts) == (("2026-01-05",), {"upload": 1})


def test_many_uploads_of_a_batch_are_one_batch() -> None:
    put = body(record(f"{DAY}a.jpg"))
    events = ("ObjectCreated:CompleteMultipartUpload", "s3:ObjectCreated:Put")
    multipart = body(*(record(f"{DAY}b.jpg", event) for event in events))
    arrived = read_messages([put, put, multipart, body(record("images/2025-12-31/c.jpg"))], LANDING_ZONE)
    assert arrived.batch_ids == ("2025-12-31", "2026-01-05")
    assert arrived.counts == {"upload": 5}


@pytest.mark.parametrize("wrap", [str, sns])
def test_event_bridge_and_sns_are_understood(wrap: Any) -> None:
    key = f"{DAY}a+b%20c.jpg"  # EventBridge does not encode it
    messages = (event_bridge(key), event_bridge(key, "Object Deleted"), body(record(key)))
    arrived = read_messages(map(wrap, messages), LANDING_ZONE)
    assert (arrived.batch_ids, arrived.counts) == (("2026-01-05",), {"deletion": 1, "upload": 2})


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "landing"}), "test"),
        (body(record(f"{DAY}a.jpg", "ObjectRemoved:Delete")), "deletion"),
        (body(record(f"{DAY}a.jpg", "LifecycleExpiration:Delete")), "deletion"),
        (body(record(f"{DAY}a.jpg", "ObjectTagging:Put")), "other_event"),
        (body(record("other/2026-01-05/a.jpg")), "elsewhere"),
        (body(record(f"{DAY}a.jpg", bucket="another")), "elsewhere"),
        (body(record(f"{DAY}label/")), "folder"),
        (body(record(f"{DAY}label/._a.jpg")), "junk"),
        (body(record("images/2026-13-05/a.jpg")), "no_batch"),
        (body(record("images/a.jpg")), "no_batch"),
        (body(record("images//a.jpg")), "no_batch"),
        ("no JSON", "unreadable"),
        ("[]", "unreadable"),
        ("null", "unreadable"),
        ('{"Records": [{"eventName": 3}]}', "unreadable"),
        ('{"Type": "Notification", "Message": 5}', "unreadable"),
        (sns("plain text"), "unreadable"),
    ],
)
def test_messages_of_no_upload_are_counted_and_hold_up_nothing(message: str, kind: str) -> None:
    arrived = read_messages([message, body(record(f"{DAY}a.jpg"))], LANDING_ZONE)
    assert arrived.batch_ids == ("2026-01-05",)
    assert arrived.counts == {kind: 1, "upload": 1}
    assert (kind in arrived.examples) == (kind != "deletion")


def test_examples_are_few_and_short() -> None:
    arrived = read_messages(["x" * 10_000] * 50, LANDING_ZONE)
    assert arrived.counts == {"unreadable": 50}
    assert [len(example) for example in arrived.examples["unreadable"]] == [200] * 3


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda values: st.lists(values) | st.dictionaries(st.text(), values))


@given(st.text() | JSON.map(json.dumps))
def test_no_message_raises(message: str) -> None:
    assert read_messages([message], LANDING_ZONE).batch_ids == ()


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: not name.endswith("/")))
def test_any_name_under_a_batch_survives_the_encoding(name: str) -> None:
    assert read_messages([body(record(DAY + name))], LANDING_ZONE).batch_ids == ("2026-01-05",)


def test_a_key_is_of_the_batch_that_its_prefix_names() -> None:
    hourly = Settings.from_environment(
        {"ORCHARD_WAREHOUSE": "/w", "ORCHARD_LANDING": "s3://b", "ORCHARD_BATCH_KEY_FORMAT": "%Y-%m-%dT%H"}
    ).landing_zone
    assert batch_of("2026-01-05T07/x.jpg", hourly) == "2026-01-05T07"
    assert batch_of("2026-01-05/x.jpg", hourly) is None
    assert batch_of("2026-01-05T07/", hourly) is None
    assert batch_of("imagesX/2026-01-05/x.jpg", LANDING_ZONE) is None


def test_odd_records_hold_up_no_other(settings: Settings) -> None:
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "landing"}, "object": {"key": "images/2026-01-01/a.jpg"}},
    }
    mixed = json.dumps({"Records": [{"eventName": 7}, record, {}]})
    found = read_messages(["[" * 100_000, mixed], settings.landing_zone)
    assert found.batch_ids == ("2026-01-01",)
    assert found.counts == {"unreadable": 3, "upload": 1}


def test_one_day_has_one_key(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="not the canonical spelling of this date"):
        checked_partition_key("2026-1-5", settings.landing_zone.key_format)
