"""embed: the vectors that the jobs' own pipeline gives for the same bytes, whatever stands beside them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from orchard_jobs.cli import main
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.columns import MODELS
from orchard_jobs.contract.manifest import Entry, ModelReference
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.embedding import Embedded, Embedder
from orchard_jobs.errors import JobError
from orchard_jobs.images import guarded
from orchard_jobs.images.compute import Good, InputRules, Tally, compute
from orchard_jobs.images.decode import Rejected
from orchard_jobs.images.guarded import GuardedDecoder
from orchard_jobs.images.loaded_backbone import LoadedBackbone
from orchard_jobs.pca.coordinates import project
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse
from PIL import Image
from support import bad_decoder

LIMIT = 1_000_000
K = 5


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_named("efficientnet_lite0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    drawn = np.random.default_rng(5)
    paths = [folder / f"image {number}.{ending}" for number, ending in enumerate(["png", "jpg", "png", "jpg", "webp"] * 4)]
    for path in paths:
        size = drawn.integers(3, 300, 2)
        Image.fromarray(drawn.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def model(warehouse: Warehouse, backbone: Backbone) -> ModelReference:
    drawn = np.random.default_rng(7)
    components = np.linalg.qr(drawn.normal(size=(backbone.dimension, K)))[0].T
    row = {
        "model_id": "pca-test",
        "backbone": backbone.id,
        "k": K,
        "n": 9,
        "mean": drawn.normal(size=backbone.dimension),
        "components": components.ravel(),
        "explained_variance": np.ones(K),
        "explained_variance_ratio": np.ones(K),
        "merged_from": [],
        "second_moment": [],
    }
    schema = arrow_schema(MODELS)
    columns = {name: row.get(name) for name in schema.names}
    table = pa.Table.from_pylist([columns], pa.schema([field.with_nullable(True) for field in schema]))
    (Path(warehouse.uri.removeprefix("file://")) / "models").mkdir(exist_ok=True)
    pq.write_table(table, Path(warehouse.uri.removeprefix("file://")) / "models" / "test.parquet")
    return ModelReference("pca-test", "models/test.parquet", K)


@pytest.fixture(scope="module")
def published(lite0_onnx: LoadedBackbone, files: list[Path]) -> list[Good]:
    """What a worker task of featurize gives for the files, run in its batches."""
    entries = [Entry(f"file://{path}", "e", 1, "2026-01-01T00:00:00+00:00", None, "compute", "g") for path in files]
    source = [(entry, path.read_bytes()) for entry, path in zip(entries, files, strict=True)]
    outcomes = list(compute(source, lite0_onnx, InputRules(LIMIT), Tally()))
    return [outcome for outcome in outcomes if isinstance(outcome, Good)]


def test_vectors_are_those_of_the_jobs(
    warehouse: Warehouse, backbone: Backbone, model: ModelReference, files: list[Path], published: list[Good]
) -> None:
    assert len(published) == len(files)
    embedder = Embedder.load(warehouse, backbone, model, LIMIT)
    assert embedder.basis is not None
    projected = project(np.stack([good.features for good in published]), *embedder.basis).astype(np.float32)
    for path, good, coordinates in zip(files, published, projected, strict=True):
        found = embedder.embed(path.read_bytes())
        assert isinstance(found, Embedded)
        np.testing.assert_array_equal(found.features, good.features)
        assert found.features.dtype == np.float32
        assert (found.content_sha256, found.width, found.height) == (good.content_sha256, good.width, good.height)
        assert found.pca_features is not None
        np.testing.assert_allclose(found.pca_features, coordinates, rtol=1e-6, atol=1e-6 * np.abs(projected).max())


def test_a_bad_image_has_its_quarantine_reason(warehouse: Warehouse, backbone: Backbone, files: list[Path]) -> None:
    embedder = Embedder.load(warehouse, backbone, None, LIMIT)
    found = [embedder.embed(content) for content in (b"", b"text", files[0].read_bytes()[:50])]
    reasons = [one.reason for one in found if isinstance(one, Rejected)]
    assert reasons == [Reason.EMPTY, Reason.NOT_AN_IMAGE, Reason.TRUNCATED]
    good = embedder.embed(files[0].read_bytes())
    assert isinstance(good, Embedded)
    assert good.pca_features is None
    small = Embedder.load(warehouse, backbone, None, 4).embed(files[0].read_bytes())
    assert isinstance(small, Rejected)
    assert small.reason == Reason.OVER_PIXEL_LIMIT


def test_a_model_that_is_gone_is_said(warehouse: Warehouse, backbone: Backbone, model: ModelReference) -> None:
    with pytest.raises(JobError, match="holds model"):
        Embedder.load(warehouse, backbone, ModelReference("pca-other", model.path, K), LIMIT)


def test_the_command_prints_a_line_a_file_and_goes_on_after_a_bad_one(
    warehouse: Warehouse,
    backbone: Backbone,
    model: ModelReference,
    files: list[Path],
    published: list[Good],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "-odd.txt").write_text("text")
    given = [str(files[0]), str(tmp_path / "-odd.txt"), str(tmp_path / "none.jpg"), str(tmp_path), str(files[1])]
    options = ["--warehouse", warehouse.uri, "--backbone", json.dumps(asdict(backbone)), "--pixel-limit", str(LIMIT)]
    assert main(["embed", *options, "--model", json.dumps(asdict(model)), "--", *given]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == given
    assert [row.get("reason") for row in rows] == [None, "not an image", "not readable", "not readable", None]
    for row, good in ((rows[0], published[0]), (rows[4], published[1])):
        np.testing.assert_array_equal(np.array(row["features"], np.float32), good.features)
        assert len(row["pca_features"]) == K
    assert main(["embed", *options, "--", given[0]]) == 0


def test_a_file_that_kills_its_decoder_is_rejected_and_the_next_embedded(
    warehouse: Warehouse, backbone: Backbone, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = GuardedDecoder((sys.executable, "-P", bad_decoder.__file__))
    monkeypatch.setattr(guarded, "_decoder", lambda: bad)
    embedder = Embedder.load(warehouse, backbone, None, LIMIT)
    assert embedder.embed(b"abort") == Rejected(Reason.KILLED_DECODER, "the decoder died of SIGABRT")
    assert isinstance(embedder.embed(files[0].read_bytes()), Embedded)
    bad.stop()
