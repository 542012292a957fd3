"""A batch with files that were made to break a decoder is published with all its other rows, on a machine of 3 GB."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from orchard.landing_zone.listing import S3LandingZone
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_sandbox.s3.landing import aws_client, s3_environment
from support.limited_memory import limited_memory
from support.moto_server import moto_server
from support.repository import SHARED
from support.spark_runs import copy_backbone, publish_batch

DAY = "2026-09-02"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What lets a process reach a moto server of its own."""
    with moto_server(tmp_path) as address:
        yield s3_environment(address, "thing")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the bombs and the fruits are not here")
def test_a_batch_with_every_bomb_publishes_its_other_rows_in_3_gb(tmp_path: Path, aws: dict[str, str]) -> None:
    fruits = sorted((SHARED / "fruits360").rglob("*.jpg"))[::48][:200]
    bombs = sorted((SHARED / "bug_reports" / "bombs").iterdir())
    assert (len(fruits), len(bombs) > 5) == (200, True)
    s3 = aws_client("s3", aws)
    s3.create_bucket(Bucket="landing")
    uris = {path: f"s3://landing/images/{DAY}/any/{number}-{path.name}" for number, path in enumerate([*fruits, *bombs])}
    for path, uri in uris.items():
        s3.put_object(Bucket="landing", Key=uri.removeprefix("s3://landing/"), Body=path.read_bytes())
    variables = {"ORCHARD_LANDING": "s3://landing/images", "ORCHARD_MAX_QUARANTINED_SHARE": "1"}
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": str(tmp_path / "warehouse"), **variables})
    tables = Tables.at(settings.warehouse)
    copy_backbone(tables, settings)
    with limited_memory(3_000_000_000) as memory:
        publish_batch(tables, settings, DAY, S3LandingZone(s3, "landing"), aws, memory.command)
    published = {row["image_uri"] for row in tables.rows(FEATURES, backbone=settings.backbone.id)}
    set_aside = {row["image_uri"]: row["reason"] for row in tables.rows(QUARANTINE, backbone=settings.backbone.id)}
    assert {uris[path] for path in fruits} <= published
    assert published | set_aside.keys() == set(uris.values())
    assert set_aside[uris[SHARED / "bug_reports" / "bombs" / "jpeg_200.bin"]] == "too costly to decode"
