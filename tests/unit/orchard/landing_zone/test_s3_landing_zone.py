"""The landing zone in S3: every object of every page, and which ETags are false."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError
from orchard.landing_zone.listing import S3LandingZone


class Pages:
    """A boto3 client whose listing has two pages."""

    def get_paginator(self, name: str) -> "Pages":
        assert name == "list_objects_v2"
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        assert (Bucket, Prefix) == ("landing", "images/2026-01-01/")
        new_york = timezone(timedelta(hours=-5))
        at = datetime(2026, 1, 1, 7, tzinfo=new_york)
        keys = ["a/", "a/x 1.jpg", "a/ü%20#?.jpg", "loose.jpg"]
        items = [{"Key": Prefix + key, "ETag": '"e-2"', "Size": 3, "LastModified": at} for key in keys]
        return [{"Contents": items[:2]}, {"Contents": items[2:]}, {}]


def test_a_listing_is_every_object_of_every_page_but_folder_markers() -> None:
    found = list(S3LandingZone(Pages(), "landing").list("images/2026-01-01/"))
    assert [item.key.removeprefix("images/2026-01-01/") for item in found] == ["a/x 1.jpg", "a/ü%20#?.jpg", "loose.jpg"]
    assert {(item.etag, item.uploaded_at) for item in found} == {("e-2", datetime(2026, 1, 1, 12, tzinfo=UTC))}


@pytest.mark.parametrize(
    ("told", "is_false"),
    [
        ({"ServerSideEncryption": "aws:kms"}, True),
        ({"ServerSideEncryption": "aws:kms:dsse"}, True),
        ({"ServerSideEncryption": "AES256"}, False),
        ({}, False),
        ("403", False),
        ("404", False),
    ],
)
def test_the_store_tells_of_what_a_key_of_kms_encrypts(
    told: dict[str, str] | str, is_false: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert S3LandingZone(Head(told), "landing").has_false_md5("s3://landing/images/2026-01-01/a b%20#.jpg") is is_false
    assert ("cannot be determined" in caplog.text) == isinstance(told, str)


def test_a_store_that_is_busy_is_asked_again_by_the_next_try() -> None:
    with pytest.raises(ClientError):
        S3LandingZone(Head("503"), "landing").has_false_md5("s3://landing/images/2026-01-01/a b%20#.jpg")


@dataclass(frozen=True)
class Head:
    """An S3 client that answers, or refuses with a code."""

    told: dict[str, str] | str

    def head_object(self, Bucket: str, Key: str) -> dict[str, str]:
        assert (Bucket, Key) == ("landing", "images/2026-01-01/a b%20#.jpg")
        if isinstance(self.told, str):
            raise ClientError({"Error": {"Code": self.told, "Message": "refused"}}, "HeadObject")
        return self.told
