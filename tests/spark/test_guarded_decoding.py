"""A batch with images that kill their decoder: each is set aside by its name, on both sources, and the others are computed."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.images import guarded
from orchard_jobs.images.guarded import GuardedDecoder
from orchard_jobs.stages import spark_reader
from orchard_jobs.stages.featurize import featurize
from orchard_jobs.stages.workers import Task, Workers
from orchard_jobs.storage import Warehouse
from pyspark.sql import SparkSession
from support import bad_decoder
from support.local_manifests import entry_of, freeze, rows_of
from support.pictures import picture, saved

BAD = (sys.executable, "-P", bad_decoder.__file__)
KILLERS = {"abort.jpg": b"abort", "killed.jpg": b"killed", "reserve.jpg": b"reserve", "spin.jpg": b"spin"}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, warehouse: Warehouse, backbone: Backbone) -> ManifestHead:
    folder = tmp_path_factory.mktemp("killers")
    for number in range(6):
        (folder / f"{number}.png").write_bytes(saved(picture(seed=number), "PNG"))
    for name, content in KILLERS.items():
        (folder / name).write_bytes(content)
    return freeze(warehouse, backbone, [entry_of(path) for path in sorted(folder.iterdir())], batch_id="2026-08-01")


def with_bad_decoder(call: Callable[..., Any], command: tuple[str, ...] = BAD) -> Callable[..., Any]:
    """Return a call that decodes badly while it runs. A closure: no worker can import this module."""

    def calling(*arguments: Any, **named: Any) -> Any:
        bad, good = GuardedDecoder(command), guarded._decoder
        guarded.__dict__["_decoder"] = lambda: bad
        try:
            found = call(*arguments, **named)
            return iter(list(found)) if isinstance(found, Iterator) else found
        finally:
            guarded.__dict__["_decoder"] = good
            bad.stop()

    return calling


class BadlyDecoding(Workers):
    def run(self, count: int, task: Task, at_most: int | None = None) -> list[str]:
        return super().run(count, with_bad_decoder(task), at_most)


@pytest.mark.parametrize("source", ["fetch", "spark"])
def test_images_that_kill_their_decoder_are_set_aside_by_name(
    spark: SparkSession, warehouse: Warehouse, head: ManifestHead, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    monkeypatch.setattr(spark_reader, "_compute_partition", with_bad_decoder(spark_reader._compute_partition))
    work = work_digest(head.digest, head.backbone.id, f"guarded {source}")
    report = featurize(BadlyDecoding(spark, source), warehouse, head, work)
    assert report.reasons == {"killed its decoder": 2, "too costly to decode": 2}
    set_aside = {Path(row["image_uri"]).name: row["message"] for row in rows_of(warehouse, report, "quarantine")}
    assert set_aside.keys() == KILLERS.keys()
    assert set_aside["abort.jpg"] == "the decoder died of SIGABRT"
    good = {Path(row["image_uri"]).name for row in rows_of(warehouse, report, "features")}
    assert good == {f"{number}.png" for number in range(6)}
