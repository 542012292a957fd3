"""featurize on a real Spark with the real backbone: every image once, every row accounted for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from orchard_jobs import __version__
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import progress_folder
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.loaded_backbone import load_backbone
from orchard_jobs.pca.moments import Moments
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from PIL import Image
from support.featurized import run_featurize
from support.local_manifests import entry_of, files_of, freeze, rows_of

POLICY = AuditPolicy(max_quarantined_share=1.0)


def test_every_image_has_one_row_and_the_audit_agrees(
    warehouse: Warehouse, batch: list[Path], first: tuple[ManifestHead, JobReport]
) -> None:
    head, report = first
    good, bad = rows_of(warehouse, report, "features"), rows_of(warehouse, report, "quarantine")
    assert {row["image_uri"] for row in [*good, *bad]} == {f"file://{path}" for path in batch}
    assert len(good) + len(bad) == len(batch) == report.counts["listed"]
    assert report.counts["quarantined"] == len(bad) >= 1
    assert report.counts["reused"] >= 1
    assert report.counts["network_runs"] == report.counts["featurized"] == len({row["content_sha256"] for row in good})
    assert sum(report.reasons.values()) == len(bad)
    audit_batch(warehouse, head, report, None, POLICY).raise_if_failed()


def test_the_features_are_those_of_the_bare_backbone(
    warehouse: Warehouse, backbone: Backbone, first: tuple[ManifestHead, JobReport]
) -> None:
    loaded = load_backbone(backbone, warehouse)
    for row in rows_of(warehouse, first[1], "features")[:5]:
        image = decode(Path(row["image_uri"].removeprefix("file://")).read_bytes(), 50_000_000, backbone.input_pixels)
        assert isinstance(image, Decoded)
        np.testing.assert_array_equal(np.float32(row["features"]), loaded(image.squares[0][np.newaxis])[0])
        assert (row["width"], row["height"]) == (image.width, image.height)


def test_rows_carry_their_provenance(first: tuple[ManifestHead, JobReport], warehouse: Warehouse) -> None:
    head, report = first
    assert report.job_id.startswith("local-")
    for row in rows_of(warehouse, report, "features"):
        assert row["manifest_digest"] == row["computed_in"] == head.digest
        assert row["uploaded_at"].isoformat() == "2026-01-01T12:00:00.000001+00:00"
        assert row["jobs_version"] == __version__
        assert row["label"] == Path(row["image_uri"]).parent.name


def test_a_small_batch_has_no_moments_file(first: tuple[ManifestHead, JobReport]) -> None:
    assert first[1].of_table("moments") == ()


def test_running_counts_end_at_the_total(first: tuple[ManifestHead, JobReport], warehouse: Warehouse) -> None:
    counts = [json.loads(warehouse.read(path)) for path, _ in warehouse.list(progress_folder(first[1].work))]
    assert sum(count["done"] for count in counts) == first[0].listed
    assert {count["total"] for count in counts} == {first[0].listed}


def test_a_batch_of_only_broken_files_has_no_features(
    workers: Workers, warehouse: Warehouse, backbone: Backbone, images: Path
) -> None:
    folder = images / "broken" / "label"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.jpg").write_text(f"no image {number}")
    head = freeze(warehouse, backbone, [entry_of(path) for path in folder.iterdir()], batch_id="broken")
    report = run_featurize(workers, warehouse, head)
    assert (report.counts["quarantined"], report.counts["featurized"]) == (3, 0)
    assert report.reasons == {"not an image": 3}
    assert files_of(report, "features") == ()
    assert audit_batch(warehouse, head, report, None, POLICY).warnings


def test_equal_content_under_opaque_etags_costs_one_backbone_run(
    workers: Workers, warehouse: Warehouse, backbone: Backbone, batch: list[Path], images: Path
) -> None:
    folder = images / "copies" / "label"
    folder.mkdir(parents=True)
    whole = max(batch, key=lambda path: path.stat().st_size).read_bytes()
    entries = []
    for number in range(12):
        path = folder / f"{number}.jpg"
        path.write_bytes(whole)
        entries.append(entry_of(path, etag=f"{number:032x}-2", group=str(len(whole))))
    head = freeze(warehouse, backbone, entries, batch_id="copies")
    counts = run_featurize(workers, warehouse, head).counts
    assert (counts["network_runs"], counts["featurized"], counts["reused"]) == (1, 1, 11)


def test_a_known_content_costs_a_read_and_no_backbone_run(
    workers: Workers, warehouse: Warehouse, backbone: Backbone, first: tuple[ManifestHead, JobReport], images: Path
) -> None:
    source = rows_of(warehouse, first[1], "features")[0]
    folder = images / "known" / "Again"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(Path(source["image_uri"].removeprefix("file://")).read_bytes())
    Image.new("RGB", (31, 21), (20, 130, 140)).save(folder / "new.png")
    entries = [entry_of(path, etag=f"{i:032x}-2", group="g") for i, path in enumerate(sorted(folder.iterdir()))]
    vectors = files_of(first[1], "features")
    head = freeze(warehouse, backbone, entries, batch_id="known", vector_files=vectors, known=[source["content_sha256"]])
    report = run_featurize(workers, warehouse, head)
    counts = {"listed": 3, "featurized": 1, "reused": 2, "quarantined": 0, "missing": 0, "network_runs": 1}
    assert report.counts == counts
    rows = sorted(rows_of(warehouse, report, "features"), key=lambda row: row["image_uri"])
    for row, entry in zip(rows[:2], entries, strict=False):
        assert (row["image_uri"], row["etag"], row["label"]) == (entry.image_uri, entry.etag, "Again")
        for name in ("content_sha256", "features", "width", "height", "computed_in"):
            assert row[name] == source[name]
    assert rows[2]["computed_in"] == head.digest
    audit_batch(warehouse, head, report, None, POLICY).raise_if_failed()


def test_equal_images_whose_etags_differ_are_counted_once(
    workers: Workers, warehouse: Warehouse, backbone: Backbone, images: Path
) -> None:
    """As in a bucket under SSE-KMS: the ETags have the form of an MD5 and are none, so the two are in two groups."""
    folder = images / "encrypted" / "Twice"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (29, 23), (200, 30, 140)).save(folder / name)
    entries = [entry_of(path, etag=f"{i:032x}", group=f"{i:032x}") for i, path in enumerate(sorted(folder.iterdir()))]
    head = freeze(warehouse, backbone, entries, batch_id="encrypted")
    report = run_featurize(workers, warehouse, head)
    counts = {"listed": 2, "featurized": 1, "reused": 1, "quarantined": 0, "missing": 0, "network_runs": 2}
    assert report.counts == counts
    audit_batch(warehouse, head, report, None, POLICY).raise_if_failed()


def test_moments_are_those_of_every_row_computed_or_kept(
    workers: Workers,
    warehouse: Warehouse,
    backbone: Backbone,
    batch: list[Path],
    first: tuple[ManifestHead, JobReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch is too small for moments, so the limit is lowered. They are merged in a worker, never in this process."""
    monkeypatch.setattr("orchard_jobs.stages.featurize.has_moments", lambda head, rows: rows > 0)
    monkeypatch.delattr("orchard_jobs.stages.batch_moments.merge_all")
    published = [row["image_uri"] for row in rows_of(warehouse, first[1], "features")]
    kept = set(published[: len(published) // 2])
    entries = [entry_of(path) for path in batch]
    entries = [replace(one, action="keep", group="") if one.image_uri in kept else one for one in entries]
    features = files_of(first[1], "features")
    head = freeze(warehouse, backbone, entries, batch_id="moments", features_files=features)
    report = run_featurize(workers, warehouse, head)
    assert len(files_of(report, "features")) > 1
    (staged,) = report.of_table("moments")
    (row,) = pq.ParquetFile(warehouse.open(staged.files[0].path)).read().to_pylist()
    expected = Moments.of(np.array([row["features"] for row in rows_of(warehouse, report, "features")], dtype=np.float32))
    assert expected.n == len(published)
    found = Moments(row["n"], np.array(row["mean"]), np.array(row["second_moment"]))
    assert found.n == expected.n
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    error = np.linalg.norm(found.second_moment - expected.second_moment) / np.linalg.norm(expected.second_moment)
    assert error < 1e-12
