"""Images that Spark reads for workers without a network: the same rows as those of workers that fetch, in every detail."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import Entry, ManifestHead
from orchard_jobs.contract.views import parse_views
from orchard_jobs.errors import JobError
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.loaded_backbone import load_backbone
from orchard_jobs.images.sources import Fetched, FetchLimits, fetch
from orchard_jobs.stages import featurize as stage
from orchard_jobs.stages import spark_reader
from orchard_jobs.stages.featurize import featurize
from orchard_jobs.stages.staging import finish
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from orchard_sandbox.stack.samples import draw_samples
from pyspark.sql import SparkSession
from support.local_manifests import entry_of, freeze, rows_of

# Spark's reader leaves these out: a hidden one, one that would be metadata, one below such a folder, an empty one.
UNREAD = (".hidden.jpg", "_metadata.jpg", "_folder/x.jpg", "empty.jpg")
ODD = ("x 1%.jpg", "[a]{b}*é#.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn batch below a folder that a glob would misread, with keys that Spark reads and keys that it does not."""
    root = tmp_path_factory.mktemp("carried") / "[2026]"
    draw_samples(root)
    day = min(path for path in root.iterdir())
    good = min(day.rglob("*.jpg"))
    for name in (*UNREAD, *ODD):
        path = day / "odd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name.startswith("empty") else good.read_bytes() + name.encode())
    # Equal to one that Spark leaves out: it is computed once all the same.
    (day / "odd" / "twin.jpg").write_bytes((day / "odd" / ".hidden.jpg").read_bytes())
    return day


@pytest.fixture(scope="module")
def head(folder: Path, warehouse: Warehouse, backbone: Backbone) -> ManifestHead:
    paths = [*(path for path in folder.rglob("*") if path.is_file()), folder / "odd" / "gone.jpg"]
    entries = [entry_of(path) for path in paths]
    return freeze(warehouse, backbone, entries, batch_id="2026-07-01")


def run(spark: SparkSession, warehouse: Warehouse, head: ManifestHead, source: Any) -> JobReport:
    # Another piece of work for each source, as it is one for each stage.
    work = work_digest(head.digest, head.backbone.id, f"featurize {source}")
    return finish(warehouse, featurize(Workers(spark, source), warehouse, head, work))


@pytest.fixture(scope="module")
def fetched(spark: SparkSession, warehouse: Warehouse, head: ManifestHead) -> JobReport:
    return run(spark, warehouse, head, "fetch")


def test_both_sources_give_the_same_rows(
    spark: SparkSession, warehouse: Warehouse, head: ManifestHead, fetched: JobReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SMALLEST_TASK", 16)
    monkeypatch.setattr(spark_reader, "_SHARDS_AT_ONCE", 2)  # so that Spark is asked for some of the folder's files
    by_driver: list[str] = []

    def fetched_here(entries: list[Entry], limits: FetchLimits) -> Iterator[Fetched]:
        by_driver.extend(Path(entry.image_uri).name for entry in entries)
        return fetch(entries, limits)

    monkeypatch.setattr(spark_reader, "fetch", fetched_here)
    found = run(spark, warehouse, head, "spark")
    assert sorted(by_driver) == sorted([*(Path(name).name for name in UNREAD), "twin.jpg", "gone.jpg"])
    assert found.counts == fetched.counts
    assert found.reasons == fetched.reasons
    assert found.reasons["vanished"] == 1
    for table, shown in (("features", 7 + len(ODD)), ("quarantine", 2)):
        rows = [sorted(rows_of(warehouse, report, table), key=lambda row: row["image_uri"]) for report in (found, fetched)]
        assert rows[0] == rows[1]
        assert len(rows[0]) >= shown
    (features,) = found.of_table("features")
    assert len(features.files) > 2
    audit_batch(warehouse, head, found, None, AuditPolicy(max_quarantined_share=1.0)).raise_if_failed()


@pytest.mark.parametrize("source", ["fetch", "spark"])
def test_each_view_of_an_image_is_run(spark: SparkSession, warehouse: Warehouse, folder: Path, source: str) -> None:
    """With the export of the whole view, which is the only one in the warehouse."""
    views = parse_views("whole,centre:0.5")
    entries = [entry_of(path) for path in sorted(folder.rglob("*.jpg"))[:4]]
    head = freeze(warehouse, backbone_named("efficientnet_lite0", views=views), entries, batch_id="2026-07-05")
    report = run(spark, warehouse, head, source)
    assert report.counts["network_runs"] == 2 * report.counts["featurized"] > 0
    loaded = load_backbone(backbone_named("efficientnet_lite0"), warehouse)
    for row in rows_of(warehouse, report, "features"):
        found = decode(Path(row["image_uri"].removeprefix("file://")).read_bytes(), 50_000_000, 224, views)
        assert isinstance(found, Decoded)
        np.testing.assert_allclose(row["features"], loaded(found.squares).mean(axis=0), rtol=1e-6)
    audit_batch(warehouse, head, report, None, AuditPolicy(max_quarantined_share=1.0)).raise_if_failed()


def test_known_contents_are_not_run(
    spark: SparkSession, warehouse: Warehouse, backbone: Backbone, folder: Path, fetched: JobReport
) -> None:
    rows = rows_of(warehouse, fetched, "features")
    files = tuple(file.path for partition in fetched.of_table("features") for file in partition.files)
    opaque = [
        replace(entry_of(Path(row["image_uri"].removeprefix("file://"))), etag=f"{number}-2", group=str(number))
        for number, row in enumerate(rows)
    ]
    again = freeze(
        warehouse, backbone, opaque, batch_id="2026-07-02", vector_files=files, known={row["content_sha256"] for row in rows}
    )
    report = run(spark, warehouse, again, "spark")
    assert (report.counts["network_runs"], report.counts["reused"]) == (0, len(rows))


def test_an_image_that_is_overwritten_while_spark_reads_fails_the_job(
    spark: SparkSession, warehouse: Warehouse, backbone: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [entry_of(path) for path in sorted(folder.rglob("*.jpg"))[:4]]
    answers = [frozenset(entry.image_uri for entry in some), frozenset(entry.image_uri for entry in some[1:])]
    monkeypatch.setattr(spark_reader, "listed_as_before", lambda entries: answers.pop(0))
    with pytest.raises(JobError, match=r"1 images were overwritten or removed while they were read, among them 'file:///"):
        run(spark, warehouse, freeze(warehouse, backbone, some, batch_id="2026-07-03"), "spark")


def test_a_folder_that_is_gone_is_no_fault_of_the_job(spark: SparkSession, warehouse: Warehouse, backbone: Backbone) -> None:
    entry = replace(entry_of(Path("/nowhere/at/all/x.jpg")), etag=hashlib.md5(b"x").hexdigest())
    report = run(spark, warehouse, freeze(warehouse, backbone, [entry], batch_id="2026-07-04"), "spark")
    assert report.reasons == {"vanished": 1}
