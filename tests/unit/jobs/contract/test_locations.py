"""URIs: places on S3 go both ways whatever the key holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as some
from orchard_jobs.contract.locations import S3Location, common_folder, image_uri, is_s3, local_path, split_image_uri
from orchard_jobs.errors import ConfigurationError

buckets = some.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True)
# Empty elements, `..`, what URIs give a meaning, blanks, line breaks and letters of any alphabet.
keys = some.lists(some.sampled_from(["", ".", "..", "a b", "#?%", "%2F", "é\u2028", "x\n", "s3:"]) | some.text(max_size=8)).map(
    "/".join
)


@given(buckets, keys)
def test_a_location_goes_both_ways_whatever_its_key(bucket: str, key: str) -> None:
    location = S3Location(bucket, key)
    assert S3Location.parse(location.uri) == location


@given(buckets, keys.filter(bool))
def test_an_image_keeps_its_raw_key(bucket: str, key: str) -> None:
    assert image_uri(bucket, key) == f"s3://{bucket}/{key}"
    assert split_image_uri(image_uri(bucket, key)) == (f"s3://{bucket}", key)
    assert S3Location.parse(image_uri(bucket, key)) == S3Location(bucket, key)


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("s3://lake", S3Location("lake")),
        ("s3://lake/", S3Location("lake")),
        ("s3://lake/a/b", S3Location("lake", "a/b")),
        ("s3://lake//a", S3Location("lake", "/a")),
        ("s3://lake/a%20b#1?.jpg", S3Location("lake", "a%20b#1?.jpg")),
    ],
)
def test_a_uri_names_a_bucket_and_a_raw_key(uri: str, location: S3Location) -> None:
    assert S3Location.parse(uri) == location


@pytest.mark.parametrize("text", ["", "lake/a", "s3:/lake", "s3://", "s3:///a", "s3a://lake/a", "file:///lake/a"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no place on S3"):
        S3Location.parse(text)


def test_a_location_is_joined_with_one_slash() -> None:
    assert S3Location("lake").join("a", "b").uri == "s3://lake/a/b"
    assert S3Location("lake", "a").join("b").uri == "s3://lake/a/b"
    assert S3Location("lake", "a/").join("b").uri == "s3://lake/a/b"


def test_a_file_is_no_place_on_s3() -> None:
    assert not is_s3("file:///data")
    assert local_path("file:///data/x") == "/data/x"
    assert local_path("s3://lake/x") is None


@pytest.mark.parametrize(
    ("uris", "folder"),
    [
        (["s3://b/i/a/1.jpg", "s3://b/i/a/2.jpg"], "s3://b/i/a/"),
        (["s3://b/i/ab/1.jpg", "s3://b/i/ac/2.jpg"], "s3://b/i/"),
        (["s3://landing/d/1/é.png", "s3://landing/d/2/a.png"], "s3://landing/d/"),
        (["file:///x/1.jpg"], "file:///x/"),
    ],
)
def test_the_common_folder_is_whole(uris: list[str], folder: str) -> None:
    assert common_folder(uris) == folder
