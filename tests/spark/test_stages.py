"""The stages on a real Spark with the real backbone: every image once, every row accounted for, every file in the report."""

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from orchard_jobs import __version__
from orchard_jobs.audit.batch import AuditPolicy, audit_batch
from orchard_jobs.audit.projection import audit_projection
from orchard_jobs.audit.schemas import arrow_schema
from orchard_jobs.cli import main
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.columns import MODELS
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import BatchVersion, JobReport, Projection, ProjectionPlan
from orchard_jobs.contract.layout import fault_path, plan_path, progress_folder, report_path
from orchard_jobs.contract.manifest import Action, Entry, ManifestHead, ModelReference
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.images.backbones import load_backbone
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.pca.fit import Spectrum
from orchard_jobs.pca.moments import Moments
from orchard_jobs.stages.featurize import featurize
from orchard_jobs.stages.project import project
from orchard_jobs.stages.reduce import reduce
from orchard_jobs.stages.staging import finish
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from orchard_sandbox.stack.samples import draw_samples
from PIL import Image
from support.local_manifests import entry_of, files_of, freeze, rows_of

Rows = list[dict[str, Any]]
POLICY = AuditPolicy(max_quarantined_share=1.0)


@pytest.fixture(scope="session")
def batch(images: Path) -> list[Path]:
    """One day of the drawn samples: fruit of six labels, a broken file, a duplicate, a CMYK and a 1x1 image among them."""
    draw_samples(images / "sample")
    day = min((images / "sample").iterdir())
    return sorted(path for path in day.rglob("*") if path.is_file())


def run_featurize(workers: Workers, warehouse: Warehouse, head: ManifestHead) -> JobReport:
    work = work_digest(head.digest, head.backbone.id, "featurize")
    return finish(warehouse, featurize(workers, warehouse, head, work))


@pytest.fixture(scope="session")
def first(workers: Workers, warehouse: Warehouse, backbone: Backbone, batch: list[Path]) -> tuple[ManifestHead, JobReport]:
    head = freeze(warehouse, backbone, [entry_of(path) for path in batch])
    return head, run_featurize(workers, warehouse, head)


@pytest.fixture(scope="session")
def model(warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> ModelReference:
    vectors = np.array([row["features"] for row in rows_of(warehouse, first[1], "features")], dtype=np.float32)
    moments = Moments.of(vectors)
    basis = Spectrum.of(moments).fit(5)
    assert basis is not None
    row = {
        "model_id": "pca-test",
        "backbone": first[0].backbone.id,
        "k": basis.k_used,
        "n": moments.n,
        "mean": basis.mean,
        "components": basis.components.ravel(),
        "explained_variance": basis.explained_variance,
        "explained_variance_ratio": basis.explained_variance_ratio,
        "merged_from": [],
        "second_moment": moments.upper_triangle,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(MODELS)])
    folder = Path(warehouse.uri.removeprefix("file://")) / "models"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row], schema), folder / "model.parquet")
    return ModelReference("pca-test", "models/model.parquet", basis.k_used)


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
        np.testing.assert_array_equal(np.float32(row["features"]), loaded(image.pixels[np.newaxis])[0])
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


def test_the_next_version_keeps_reuses_and_computes_only_what_is_new(
    workers: Workers, warehouse: Warehouse, backbone: Backbone, batch: list[Path], first: tuple[ManifestHead, JobReport]
) -> None:
    _, report = first
    published = {row["image_uri"]: row for row in rows_of(warehouse, report, "features")}
    quarantined = {row["image_uri"] for row in rows_of(warehouse, report, "quarantine")}
    entries: list[Entry] = []
    for path in batch:
        entry = entry_of(path, group="")
        action: Action = "keep_quarantined" if entry.image_uri in quarantined else "keep"
        entries.append(replace(entry, action=action))
    gone = next(index for index, entry in enumerate(entries) if entry.action == "keep")
    entries[gone] = replace(entries[gone], is_missing=True)
    source = published[entries[gone].image_uri]
    moved = replace(
        entries[gone],
        image_uri="file:///elsewhere/x.jpg",
        label="moved",
        action="reuse",
        content_sha256=source["content_sha256"],
        is_missing=False,
    )
    new = batch[0].parent / "late.png"
    Image.new("RGB", (30, 20), (200, 30, 40)).save(new)
    head = freeze(
        warehouse,
        backbone,
        [*entries, moved, entry_of(new)],
        number=2,
        features_files=files_of(report, "features"),
        vector_files=files_of(report, "features"),
        quarantine_files=files_of(report, "quarantine"),
    )
    second = run_featurize(workers, warehouse, head)
    new.unlink()
    listed = len(batch) - 1 + 2
    expected = {
        "listed": listed,
        "featurized": 1,
        "network_runs": 1,
        "missing": 1,
        "reused": listed - 1 - len(quarantined),
        "quarantined": len(quarantined),
    }
    assert second.counts == expected
    rows = {row["image_uri"]: row for row in rows_of(warehouse, second, "features")}
    assert rows["file:///elsewhere/x.jpg"]["features"] == source["features"]
    assert rows["file:///elsewhere/x.jpg"]["label"] == "moved"
    assert {row["manifest_digest"] for row in rows.values()} == {head.digest}
    assert rows[f"file://{new}"]["computed_in"] == head.digest
    assert rows[source["image_uri"]]["computed_in"] == first[0].digest
    audit_batch(warehouse, head, second, None, POLICY).raise_if_failed()


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


def test_reduce_projects_what_featurize_staged(
    workers: Workers, warehouse: Warehouse, batch: list[Path], backbone: Backbone, model: ModelReference
) -> None:
    head = freeze(warehouse, backbone, [entry_of(path) for path in batch], model=model, number=7)
    featurized = run_featurize(workers, warehouse, head)
    report = finish(warehouse, reduce(workers, warehouse, head, work_digest(head.digest, backbone.id, "reduce"), featurized))
    audit_batch(warehouse, head, featurized, report, POLICY).raise_if_failed()
    _check_projection(warehouse, model, rows_of(warehouse, featurized, "features"), rows_of(warehouse, report, "pca_features"))
    (captured,) = report.captured
    assert captured.share is not None
    assert 0.3 < captured.share < 1
    rows = np.array([row["features"] for row in rows_of(warehouse, featurized, "features")], dtype=np.float64)
    assert len(files_of(featurized, "features")) > 1
    row = pq.ParquetFile(warehouse.open(model.path)).read().to_pylist()[0]
    components = np.array(row["components"]).reshape(row["k"], -1)
    centred = rows - rows.mean(axis=0)
    assert captured.n == len(rows)
    np.testing.assert_allclose([captured.total, captured.kept], [(centred**2).sum(), ((centred @ components.T) ** 2).sum()])


def _check_projection(warehouse: Warehouse, model: ModelReference, features: Rows, projected: Rows) -> None:
    row = pq.ParquetFile(warehouse.open(model.path)).read().to_pylist()[0]
    mean, components = np.array(row["mean"]), np.array(row["components"]).reshape(row["k"], -1)
    expected = {row["image_uri"]: (np.float64(row["features"]) - mean) @ components.T for row in features}
    assert len(projected) == len(expected)
    largest = max(np.abs(vector).max() for vector in expected.values())
    for found in projected:
        np.testing.assert_allclose(found["pca_features"], expected[found["image_uri"]], atol=1e-6 * largest)


def test_project_takes_published_batches_with_each_model(
    workers: Workers, warehouse: Warehouse, first: tuple[ManifestHead, JobReport], model: ModelReference
) -> None:
    head, report = first
    published = BatchVersion(head.batch_id, head.digest, 1, files_of(report, "features"))
    empty = BatchVersion("empty", "0" * 64, 1, ())
    narrow = narrower(warehouse, model)
    plan = ProjectionPlan(head.backbone.id, (Projection(model, (published, empty)), Projection(narrow, (published,))))
    done = project(workers, warehouse, plan, work_digest(plan.digest, plan.backbone, "project"))
    staged = [partition.partition for partition in done.partitions]
    assert staged == [("pca-test", head.batch_id), ("pca-test", "empty"), ("pca-narrow", head.batch_id)]
    assert done.captured[1].share is None
    audit_projection(warehouse, plan, done).raise_if_failed()
    features = rows_of(warehouse, report, "features")
    for one, partition in ((model, done.partitions[0]), (narrow, done.partitions[2])):
        _check_projection(warehouse, one, features, rows_of(warehouse, replace(done, partitions=(partition,)), "pca_features"))
    shares = [entry.share or 0.0 for entry in done.captured]
    assert 0 < shares[2] < shares[0] < 1


def narrower(warehouse: Warehouse, model: ModelReference) -> ModelReference:
    """Return a model of the other's first two components."""
    row = pq.ParquetFile(warehouse.open(model.path)).read().to_pylist()[0]
    row |= {"model_id": "pca-narrow", "k": 2, "components": row["components"][: 2 * len(row["mean"])]}
    packed = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row], arrow_schema(MODELS)), packed)
    warehouse.create("models/pca-narrow/model.parquet", packed.getvalue().to_pybytes())
    return ModelReference("pca-narrow", "models/pca-narrow/model.parquet", 2)


def test_reduce_without_a_model_is_refused(workers: Workers, warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> None:
    with pytest.raises(ConfigurationError, match="names no PCA model"):
        reduce(workers, warehouse, first[0], "work", first[1])


def test_another_model_in_the_file_is_refused(
    workers: Workers, warehouse: Warehouse, first: tuple[ManifestHead, JobReport], model: ModelReference
) -> None:
    published = BatchVersion(first[0].batch_id, first[0].digest, 1, files_of(first[1], "features"))
    plan = ProjectionPlan(first[0].backbone.id, (Projection(replace(model, model_id="pca-other"), (published,)),))
    with pytest.raises(JobError, match="not pca-other"):
        project(workers, warehouse, plan, "work")


def test_two_processes_finish_with_one_report(warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> None:
    late = replace(first[1], job_id="slower")
    assert finish(warehouse, late) == first[1]


def test_the_command_line_reuses_a_finished_report(
    warehouse: Warehouse, first: tuple[ManifestHead, JobReport], capsys: pytest.CaptureFixture[str]
) -> None:
    before = warehouse.read(report_path(first[1].work))
    assert main(["featurize", "--warehouse", warehouse.uri, "--input-digest", first[0].digest]) == 0
    assert "its report is reused" in capsys.readouterr().out
    assert warehouse.read(report_path(first[1].work)) == before


def test_a_job_leaves_word_of_what_its_worker_failed_on(
    workers: Workers, warehouse: Warehouse, batch: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchard_jobs.session.session", lambda name: nullcontext(workers.spark))
    monkeypatch.setattr("orchard_jobs.session.end_with_owner", lambda: None)
    never_exported = backbone_named("efficientnet_lite0", "cuda")
    head = freeze(warehouse, never_exported, [entry_of(batch[0])])
    with pytest.raises(Exception, match="the exported backbone"):
        main(["featurize", "--warehouse", warehouse.uri, "--input-digest", head.digest])
    told = json.loads(warehouse.read(fault_path(work_digest(head.digest, never_exported.id, "featurize"))))
    assert re.match(r"orchard_jobs\.errors\.ConfigurationError: the exported backbone .* is not there", told["error"])
    assert datetime.fromisoformat(told["at"]).tzinfo is not None


def test_the_command_line_says_what_is_missing(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["project", "--warehouse", warehouse.uri, "--input-digest", "nothing"]) == 1
    assert plan_path("nothing") in capsys.readouterr().err
    assert main(["featurize", "--warehouse", "ftp://x", "--input-digest", "0"]) == 2
