"""The landing zone's client: the same answers as boto3's, times read the quick way."""

from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from orchard.landing_zone.listing import JunkTally, S3LandingZone, objects_of, with_quick_times
from orchard_jobs.errors import JobError


def new_client() -> Any:
    return boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")


def parsed(client: Any, time: str) -> Any:
    """Return what a listing's time becomes."""
    item = f"<Contents><Key>k</Key><LastModified>{time}</LastModified><Size>1</Size></Contents>"
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{item}</ListBucketResult>'.encode()
    shape = client.meta.service_model.operation_model("ListObjectsV2").output_shape
    answer = client._response_parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)
    return answer["Contents"][0]["LastModified"]


@pytest.mark.parametrize(
    "time", ["2026-01-31T23:59:58.123Z", "2026-01-31T23:59:58Z", "2026-01-31T18:59:58-05:00", "Sat, 31 Jan 2026 23:59:58 GMT"]
)
def test_times_are_those_of_boto3(time: str) -> None:
    quick = parsed(with_quick_times(new_client()), time)
    assert quick == parsed(new_client(), time)
    assert quick.astimezone(UTC).replace(microsecond=0) == datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC)


def test_iso_times_never_meet_dateutil(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(value: Any, *rest: Any) -> None:
        pytest.fail(f"{value!r} was guessed")

    monkeypatch.setattr("dateutil.parser.parse", refuse)
    assert parsed(with_quick_times(new_client()), "2026-01-31T23:59:58.000Z").tzinfo is not None


def test_an_object_whose_etag_was_lost_is_refused_not_taken_as_changed() -> None:
    item = {"Key": "images/2026-03-01/a b.jpg", "ETag": '""', "Size": 1, "LastModified": datetime(2026, 3, 1, tzinfo=UTC)}
    with pytest.raises(JobError, match="'images/2026-03-01/a b.jpg' has no ETag"):
        list(objects_of({"Contents": [item]}))


class OnePage:
    """A client whose bucket holds some keys."""

    def __init__(self, *keys: str) -> None:
        at = datetime(2026, 3, 1, tzinfo=UTC)
        self._page = {"Contents": [{"Key": key, "ETag": '"e"', "Size": 1, "LastModified": at} for key in keys]}

    def get_paginator(self, name: str) -> "OnePage":
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        return [self._page]


def test_desktop_junk_is_left_out_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = [f"images/2026-03-01/{name}" for name in ("Apple/0.jpg", "Apple/._0.jpg", ".DS_Store", "__MACOSX/Apple/0.jpg", "f/")]
    zone = S3LandingZone(OnePage(*keys), "landing")
    assert [item.key for item in zone.list("images/2026-03-01/")] == keys[:1]
    assert zone.junk == JunkTally(3, keys[1])
    assert (
        "ignored 3 files below images/2026-03-01/ that desktop systems create, such as 'images/2026-03-01/Apple/._0.jpg'"
        in caplog.text
    )
