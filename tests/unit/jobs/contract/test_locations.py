"""URIs: places on S3 go both ways whatever the key holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as some
from orchard_jobs.contract.locations import (
    S3Location,
    below,
    beside,
    common_folder,
    file_uri,
    first_folder,
    folder_uri,
    hadoop_uri,
    has_prefix,
    image_uri,
    is_below,
    is_desktop_junk,
    is_folder_mark,
    is_in_workspace,
    is_odd_key,
    is_on_volume,
    is_s3,
    local_path,
    name_of,
    parent_of,
    prefix_of,
    split_image_uri,
    volume_of,
)
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
    with pytest.raises(ConfigurationError, match="is not an S3 URI"):
        S3Location.parse(text)


def test_a_location_is_joined_with_one_slash() -> None:
    assert S3Location("lake").join("a", "b").uri == "s3://lake/a/b"
    assert S3Location("lake", "a").join("b").uri == "s3://lake/a/b"
    assert S3Location("lake", "a/").join("b").uri == "s3://lake/a/b"


def test_a_file_is_no_place_on_s3() -> None:
    assert not is_s3("file:///data")
    assert local_path("file:///data/x") == "/data/x"
    assert local_path("s3://lake/x") is None


def test_a_file_has_its_raw_path_as_its_uri() -> None:
    assert file_uri("/data/a b%20.jpg") == "file:///data/a b%20.jpg"
    assert hadoop_uri("file:///data/a b.jpg") == "file:/data/a b.jpg"
    assert hadoop_uri("s3://lake/file:///x") == "s3://lake/file:///x"


@pytest.mark.parametrize(
    ("path", "volume"),
    [
        ("/Volumes/main/orchard/jobs", "/Volumes/main/orchard/jobs"),
        ("/Volumes/main/orchard/jobs/a/b", "/Volumes/main/orchard/jobs"),
        ("/Volumes/main/orchard", None),
        ("/Volumes/main//jobs", None),
        ("/Workspace/main/orchard/jobs", None),
    ],
)
def test_a_path_on_a_volume_names_the_volume(path: str, volume: str | None) -> None:
    assert volume_of(path) == volume


def test_text_that_is_no_place_on_s3_is_not_found() -> None:
    assert S3Location.find("s3://lake/x") == S3Location("lake", "x")
    assert S3Location.find("s3:///x") is None
    assert S3Location.find("/x") is None


@pytest.mark.parametrize("folder", ["s3://lake/a", "s3://lake/a/"])
def test_what_lies_below_a_folder_has_one_slash_more(folder: str) -> None:
    assert below(folder, "b", "c") == "s3://lake/a/b/c"
    assert prefix_of(folder) == "s3://lake/a/"


def test_no_folder_has_no_prefix() -> None:
    assert prefix_of("") == ""


@pytest.mark.parametrize("uri", ["s3://lake/a", "s3a://lake/a/", "s3n://lake/a//"])
def test_hadoops_names_of_s3_are_one_folder(uri: str) -> None:
    assert folder_uri(uri) == "s3://lake/a"


def test_places_on_databricks_are_told_by_their_first_folder() -> None:
    assert is_on_volume("/Volumes/a/b/c")
    assert not is_on_volume("/Volumesa/b/c")
    assert is_in_workspace("/Workspace/Shared")
    assert not is_in_workspace("/Workspace")


def test_a_folder_is_told_from_one_whose_name_begins_alike() -> None:
    assert is_below("s3://b/lake/x", "s3://b/lake")
    assert not is_below("s3://b/lakes/x", "s3://b/lake")


def test_a_neighbour_lies_in_the_same_folder() -> None:
    assert beside("s3://b/jobs/package", "logs") == "s3://b/jobs/logs"


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("images/day/a.jpg", "day"),
        ("images/day/apple/a.jpg", "day"),
        ("images/day/", None),
        ("images/a.jpg", None),
        ("other/day/a.jpg", None),
    ],
)
def test_the_first_folder_below_a_prefix_holds_something(key: str, folder: str | None) -> None:
    assert first_folder(key, "images/") == folder


def test_a_key_that_ends_in_a_slash_only_stands_for_a_folder() -> None:
    assert is_folder_mark("images/day/")
    assert not is_folder_mark("images/day")


@pytest.mark.parametrize(
    ("key", "is_junk"),
    [
        ("images/day/Apple/._0.jpg", True),
        ("images/day/Apple/.DS_Store", True),
        ("images/day/Thumbs.db", True),
        ("images/day/thumbs.db", True),
        ("images/day/Desktop.ini", True),
        ("images/day/__MACOSX/Apple/0.jpg", True),
        ("__MACOSX", True),
        ("images/day/Apple/.hidden.jpg", False),
        ("images/day/._Apple/0.jpg", False),
        ("images/day/desktop.ini/0.jpg", False),
        ("images/day/Thumbs.db.jpg", False),
        ("images/day/my__MACOSX/0.jpg", False),
    ],
)
def test_what_desktops_leave_beside_files_is_known_by_name(key: str, is_junk: bool) -> None:
    assert is_desktop_junk(key) is is_junk


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


@given(some.text(max_size=20), some.text(max_size=20).filter(lambda name: "/" not in name))
def test_a_uri_is_its_folder_and_its_name(folder: str, name: str) -> None:
    uri = f"{folder}/{name}"
    assert (parent_of(uri), name_of(uri)) == (folder, name)


def test_one_element_lies_in_no_folder() -> None:
    assert (parent_of("a.txt"), name_of("a.txt")) == ("", "a.txt")


@pytest.mark.parametrize(("key", "prefix", "is_there"), [("a/b", "a/", True), ("a/b", "", True), ("ab", "a/", False)])
def test_a_key_has_a_prefix_to_the_letter(key: str, prefix: str, is_there: bool) -> None:
    assert has_prefix(key, prefix) is is_there


@pytest.mark.parametrize("key", ["a//b", "/a", "a/", "./a", "a/../b", "a\n", "\x7f", ""])
def test_keys_that_a_client_would_alter_are_odd(key: str) -> None:
    assert is_odd_key(key)


@pytest.mark.parametrize("key", ["a/b c.jpg", "..a/.b", "a/...", "%2F/#?"])
def test_any_other_key_is_taken_as_it_is(key: str) -> None:
    assert not is_odd_key(key)
