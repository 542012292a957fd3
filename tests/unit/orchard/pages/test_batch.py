"""The page Batch: images by label, thumbnails that hold nothing but the picture, and what was quarantined, with advice."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from orchard.pages.thumbnails import Pictures
from orchard.reporting.view_refresh import refresh_view
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.quarantine import EXPLANATIONS, Reason
from orchard_jobs.images import guarded
from PIL import Image
from support.changed_settings import with_variables
from support.damage import lose
from support.fake_jobs import BROKEN
from support.faked_flow import run_batch
from support.logged_in import Visitor
from support.pictures import good, picture, saved

DAY = "2026-01-01"
HOSTILE = '<img src=x onerror="alert(1)"> & "q" é.jpg'
SECRET = b"where it was taken"


def with_exif(seed: int) -> bytes:
    """A JPEG twice as wide as high, turned by EXIF, which also tells something that no thumbnail may."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, SECRET.decode()
    return saved(picture(60, 30, seed), "JPEG", exif=exif.tobytes(), quality=95)


BUCKET = {
    **{f"images/{DAY}/Apple <b>/{n}.jpg": with_exif(n) for n in range(3)},
    f"images/{DAY}/kiwi/{HOSTILE}": with_exif(3),
    f"images/{DAY}/kiwi/again.jpg": with_exif(3),
    f"images/{DAY}/direct.jpg": with_exif(4),
    f"images/{DAY}/kiwi/bad {HOSTILE}": BROKEN,
}


@pytest.fixture(scope="module", autouse=True)
def decoder_that_ends() -> Iterator[None]:
    """End this process's decoder after the tests, as the end of an api-server does."""
    yield
    guarded._decoder().stop()


@pytest.fixture
def shown(tables: Tables, settings: Settings) -> Visitor:
    run_batch(tables, settings, DAY, BUCKET)
    refresh_view(tables, settings, datetime.now(UTC))
    return Visitor.of(settings)


@pytest.fixture
def bucket(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The landing bucket, which the settings' connection reaches."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws"}')
    s3.create_bucket(Bucket="landing")
    for key, content in BUCKET.items():
        s3.put_object(Bucket="landing", Key=key, Body=content)
    return s3


def ask(visitor: Visitor, address: str, **query: Any) -> dict[str, Any]:
    answer = visitor.user.get(address, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [row["image_uri"].rsplit("/", 1)[1] for row in found["rows"]]


def test_a_batch_tells_its_versions_and_its_labels(shown: Visitor, tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, BUCKET | {f"images/{DAY}/kiwi/late.jpg": with_exif(9)})
    refresh_view(tables, settings, datetime.now(UTC))
    found = ask(shown, "/api/batch", batch_id=DAY)
    assert [version["version"] for version in found["versions"]] == [2, 1]
    assert found["batch"] == found["versions"][0]
    labels = [(one["label"], one["images"]) for one in found["labels"]]
    assert (labels, found["quarantined"]) == ([("Apple <b>", 3), ("kiwi", 3), (None, 1)], 1)
    assert found["versions"][1]["images"] is None


def test_a_run_leads_to_the_batch_that_it_published(shown: Visitor) -> None:
    assert ask(shown, "/api/batch_of_run", run_id="run")["batch"]["batch_id"] == DAY
    answer = shown.user.get("/api/batch_of_run?run_id=another")
    assert (answer.status_code, answer.json()["detail"].partition(".")[0]) == (404, "This run has published no batch version")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["0.jpg", "1.jpg", "2.jpg", HOSTILE, "again.jpg", "direct.jpg"]),
        ({"label": "Apple <b>"}, ["0.jpg", "1.jpg", "2.jpg"]),
        ({"label": "kiwi"}, [HOSTILE, "again.jpg"]),
        ({"unlabelled": True}, ["direct.jpg"]),
        ({"label": "nothing"}, []),
        ({"limit": 2, "offset": 1}, ["1.jpg", "2.jpg"]),
        ({"offset": 99}, []),
    ],
)
def test_images_are_listed_by_label(shown: Visitor, query: dict[str, Any], expected: list[str]) -> None:
    assert sorted(names(ask(shown, "/api/images", batch_id=DAY, **query))) == sorted(expected)


def test_copies_are_counted(shown: Visitor) -> None:
    found = ask(shown, "/api/images", batch_id=DAY)
    assert {name: row["copies"] for name, row in zip(names(found), found["rows"], strict=True)} == {
        **{f"{n}.jpg": 1 for n in range(3)},
        **{HOSTILE: 2, "again.jpg": 2, "direct.jpg": 1},
    }


def test_the_view_lists_each_image_as_the_tables_do(shown: Visitor, tables: Tables) -> None:
    listed = ask(shown, "/api/images", batch_id=DAY)["rows"] + ask(shown, "/api/quarantined", batch_id=DAY)["rows"]
    held = [*tables.rows(FEATURES), *tables.rows(QUARANTINE)]
    same = ("image_uri", "label", "etag", "size_bytes", "content_sha256")
    assert sorted([row[name] for name in same] for row in listed) == sorted([row[name] for name in same] for row in held)


def test_a_quarantined_file_comes_with_advice(shown: Visitor) -> None:
    found = ask(shown, "/api/quarantined", batch_id=DAY)
    (row,) = found["rows"]
    assert (found["total"], names(found)) == (1, [f"bad {HOSTILE}"])
    assert row["advice"] == EXPLANATIONS[Reason(row["reason"])].advice
    image = ask(shown, f"/api/image/{digest_of(shown)}/{row['number']}")
    assert (image["image"]["message"], image["advice"]) == (row["message"], row["advice"])


def digest_of(visitor: Visitor) -> str:
    return str(ask(visitor, "/api/batch", batch_id=DAY)["batch"]["manifest_digest"])


def number_of(visitor: Visitor, name: str) -> int:
    found = ask(visitor, "/api/images", batch_id=DAY)
    return int(found["rows"][names(found).index(name)]["number"])


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(("query", "side"), [("", 120), ("?large=true", 224)])
def test_a_thumbnail_holds_the_upright_picture_and_nothing_else(shown: Visitor, query: str, side: int) -> None:
    number = number_of(shown, HOSTILE)
    answer = shown.user.get(f"/thumbnails/{digest_of(shown)}/{number}{query}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert thumbnail.format == "JPEG"
    assert not thumbnail.getexif()
    assert SECRET not in answer.content
    assert SECRET in with_exif(3)
    assert thumbnail.size == (side // 2, side), "as high as it is wide on the disk, for EXIF turns it"
    assert good(with_exif(3)).width == 30


def test_a_picture_that_is_gone_or_changed_has_no_thumbnail(shown: Visitor, bucket: Any) -> None:
    address = f"/thumbnails/{digest_of(shown)}/{number_of(shown, '0.jpg')}"
    assert shown.user.get(address).status_code == 200
    bucket.put_object(Bucket="landing", Key=f"images/{DAY}/Apple <b>/0.jpg", Body=with_exif(7))
    assert shown.user.get(address).status_code == 404
    bucket.delete_object(Bucket="landing", Key=f"images/{DAY}/Apple <b>/0.jpg")
    assert shown.user.get(address).status_code == 404


@pytest.mark.usefixtures("bucket")
def test_a_file_that_does_not_decode_has_no_thumbnail(shown: Visitor) -> None:
    (row,) = ask(shown, "/api/quarantined", batch_id=DAY)["rows"]
    assert shown.user.get(f"/thumbnails/{digest_of(shown)}/{row['number']}").status_code == 404


@pytest.mark.parametrize(
    "uri",
    [
        "s3://another/images/2026-01-01/kiwi/a.jpg",
        "s3://landing/secrets/a.jpg",
        "s3://landing/images/2026-01-02/kiwi/a.jpg",
        "s3://landing/images/2026-01-01",
        "s3://landing/images/2026-01-011/a.jpg",
        "file:///etc/passwd",
    ],
)
def test_a_row_that_lies_elsewhere_is_never_read(settings: Settings, uri: str) -> None:
    """Not even asked for: these settings reach no store."""
    assert Pictures(settings).thumbnail(DAY, {"image_uri": uri, "size_bytes": 1, "etag": "x"}, 120) is None


def test_an_object_over_the_limit_is_never_read(settings: Settings) -> None:
    pictures = Pictures(with_variables(settings, ORCHARD_OBJECT_LIMIT=10))
    row = {"image_uri": f"s3://landing/images/{DAY}/a.jpg", "size_bytes": 11, "etag": "x"}
    assert pictures.thumbnail(DAY, row, 120) is None


def test_a_store_that_cannot_be_reached_is_told(shown: Visitor, no_cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws", "login": "a", "password": "b"}')
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    answer = shown.user.get(f"/thumbnails/{digest_of(shown)}/0")
    assert answer.status_code == 503
    assert "check the connection of ORCHARD_AWS_CONN_ID" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/batch", 422),
        ("/api/batch?batch_id=2026-09-09", 404),
        ("/api/batch?batch_id=../../x", 404),
        ("/api/images?batch_id=../2026-01-01", 404),
        (f"/api/images?batch_id={DAY}&limit=201", 422),
        (f"/api/images?batch_id={DAY}&offset=-1", 422),
        (f"/api/quarantined?batch_id={DAY}&limit=0", 422),
        ("/thumbnails/x/0", 422),
        (f"/thumbnails/{'0' * 64}/0", 404),
        (f"/thumbnails/{'0' * 64}/-1", 422),
        (f"/api/image/{'0' * 64}/0", 404),
        ("/api/image/..%2f..%2fruns/0", 404),
    ],
)
def test_a_parameter_that_names_nothing_is_refused(shown: Visitor, address: str, status: int) -> None:
    assert shown.user.get(address).status_code == status


def test_a_number_beyond_the_batch_names_no_image(shown: Visitor) -> None:
    assert shown.user.get(f"/api/image/{digest_of(shown)}/7").status_code == 404
    assert shown.user.get(f"/thumbnails/{digest_of(shown)}/7").status_code == 404


def test_a_version_whose_files_are_lost_is_shown_without_images(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, BUCKET)
    for file in tables.load(FEATURES).files():
        lose(tables.warehouse, file.path)
    refresh_view(tables, settings, datetime.now(UTC))
    visitor = Visitor.of(settings)
    assert ask(visitor, "/api/batch", batch_id=DAY)["labels"] is None
    assert visitor.user.get(f"/api/images?batch_id={DAY}").status_code == 404
