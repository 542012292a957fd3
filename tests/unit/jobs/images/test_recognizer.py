"""Classifying single files: what a classifier says of the vectors that the jobs would publish."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.predict import predict
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier, create_classifier
from orchard_jobs.cli import main
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import parse_views
from orchard_jobs.embedding import Classified, Embedded, Embedder, Recognizer
from orchard_jobs.errors import ConfigurationError, JobError
from orchard_jobs.images.decode import Rejected
from orchard_jobs.images.loaded_backbone import LoadedBackbone
from orchard_jobs.storage import Warehouse
from PIL import Image

LIMIT = 50_000_000
SHADES = {"lime": (90, 200, 60), "plum": (110, 30, 110), "sky": (120, 190, 250)}
MODEL_ID = "lda-0123456789abcdef"


def drawn(shade: tuple[int, int, int], seed: int, spread: int = 20) -> bytes:
    """A PNG of one shade with noise."""
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, (48, 64, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noise + shade, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=["whole", "whole,centre:0.5"])
def backbone(lite0_onnx: LoadedBackbone, request: pytest.FixtureRequest) -> Backbone:
    return backbone_named("efficientnet_lite0", views=parse_views(request.param))


@pytest.fixture(scope="module")
def stored(warehouse: Warehouse, backbone: Backbone) -> StoredClassifier:
    """A classifier of drawn shades, in the warehouse under the id of its views."""
    embedder = Embedder.load(warehouse, backbone, None, LIMIT)
    labels = [label for label in SHADES for _ in range(8)]
    found = [embedder.embed(drawn(SHADES[label], seed)) for seed, label in enumerate(labels)]
    moments = ClassMoments.of(np.stack([one.features for one in found if isinstance(one, Embedded)]), labels)
    classifier = fit(classes_of(moments), 0.5)
    own = {label: label for label in SHADES}
    model_id = f"{MODEL_ID}-{backbone.id}"
    made = StoredClassifier(model_id, backbone.id, classifier, 24, 0.5, 500.0, 60.0, own, {}, (), HeldOut("contents", 5, 24, 24))
    create_classifier(warehouse, reference(made).path, made, moments)
    return made


def reference(stored: StoredClassifier) -> ModelReference:
    return ModelReference(stored.model_id, model_path(stored.model_id, CLASSIFIERS), len(SHADES))


def test_an_image_is_told_as_its_vector_is(warehouse: Warehouse, backbone: Backbone, stored: StoredClassifier) -> None:
    recognizer = Recognizer.load(warehouse, backbone, reference(stored), LIMIT)
    for seed, (label, shade) in enumerate(SHADES.items()):
        content = drawn(shade, 100 + seed)
        found, embedded = recognizer.classify(content), Embedder.load(warehouse, backbone, None, LIMIT).embed(content)
        assert isinstance(found, Classified)
        assert isinstance(embedded, Embedded)
        told = predict(embedded.features[np.newaxis], stored)
        assert (found.predicted, found.second) == (label, told.names(1)[0])
        assert [found.score, found.second_score, found.distance] == [*told.scores[0, :2], told.distance[0]]
        assert found.score > found.second_score > 0
        assert (found.width, found.height, found.content_sha256) == (64, 48, embedded.content_sha256)
        assert found.is_known == (found.distance <= found.max_distance == 60.0)


def test_what_is_far_from_all_classes_is_not_known(warehouse: Warehouse, backbone: Backbone, stored: StoredClassifier) -> None:
    recognizer = Recognizer.load(warehouse, backbone, reference(stored), LIMIT)
    noise = recognizer.classify(drawn((128, 128, 128), 1, spread=127))
    own = recognizer.classify(drawn(SHADES["plum"], 200))
    assert isinstance(noise, Classified)
    assert isinstance(own, Classified)
    assert noise.distance > 2 * own.distance
    stricter = Recognizer(recognizer.embedder, replace(stored, max_distance=(noise.distance + own.distance) / 2))
    judged = [stricter.classify(drawn((128, 128, 128), 1, spread=127)), stricter.classify(drawn(SHADES["plum"], 200))]
    assert [one.is_known for one in judged if isinstance(one, Classified)] == [False, True]


def test_a_bad_image_has_its_quarantine_reason(warehouse: Warehouse, backbone: Backbone, stored: StoredClassifier) -> None:
    found = Recognizer.load(warehouse, backbone, reference(stored), LIMIT).classify(b"text")
    assert isinstance(found, Rejected)
    assert found.reason == Reason.NOT_AN_IMAGE


def test_a_classifier_of_another_backbone_is_refused(warehouse: Warehouse, backbone: Backbone, stored: StoredClassifier) -> None:
    other = backbone_named("efficientnet_lite0", views=parse_views("centre:0.9"))
    with pytest.raises(ConfigurationError, match=f"was fitted on features of {backbone.id}, the backbone given is {other.id}"):
        Recognizer.load(warehouse, other, reference(stored), LIMIT)
    with pytest.raises(JobError, match="holds classifier"):
        Recognizer.load(warehouse, backbone, replace(reference(stored), model_id="lda-other"), LIMIT)


def test_the_command_prints_a_line_a_file_and_goes_on_after_a_bad_one(
    warehouse: Warehouse, backbone: Backbone, stored: StoredClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("a.png", drawn(SHADES["sky"], 7)), ("b.png", b"text"), ("c.png", drawn(SHADES["lime"], 8))):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("a.png", "b.png", "none.png", "c.png")]
    options = ["--warehouse", warehouse.uri, "--backbone", json.dumps(asdict(backbone)), "--pixel-limit", str(LIMIT)]
    assert main(["embed", *options, "--classifier", json.dumps(asdict(reference(stored))), "--", *files]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files
    assert [row.get("predicted", row.get("reason")) for row in rows] == ["sky", "not an image", "not readable", "lime"]
    assert {type(row["is_known"]) for row in (rows[0], rows[3])} == {bool}
    assert "features" not in rows[0]
