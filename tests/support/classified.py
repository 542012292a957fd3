"""A small classifier, a published batch version and its predictions, for tests that predict or audit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier, create_classifier
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

from support.staged_batch import BACKBONE, Row, features_row, sha256, stage

MODEL_ID = "lda-0123456789abcdef"
REFERENCE = ModelReference(MODEL_ID, model_path(MODEL_ID, CLASSIFIERS), 3)
LABELS = ("apple", "pear", "plum")
DIGEST = sha256("the manifest")


def vectors_of(labels: Sequence[str | None], seed: int = 0, dimension: int = BACKBONE.dimension) -> np.ndarray[Any, Any]:
    """Return features float32 [n, dimension] that lie about a centre for each label."""
    random = np.random.default_rng(seed)
    centres = {label: np.random.default_rng(place).uniform(1, 4, dimension) for place, label in enumerate(LABELS)}
    spread = random.normal(0, 0.4, (len(labels), dimension))
    middle = np.mean(list(centres.values()), axis=0)
    wanted = np.array([centres.get(label or "", middle) for label in labels])
    found: np.ndarray[Any, Any] = np.square(np.maximum(wanted + spread, 0.01)).astype(np.float32)
    return found


def fitted(
    backbone: str, sources: tuple[tuple[str, str], ...] = (), model_id: str = MODEL_ID, dimension: int = BACKBONE.dimension
) -> tuple[StoredClassifier, ClassMoments]:
    """Return a classifier of two classes, pome (apple, pear) and plum, and the class moments that it was fitted on."""
    labels = [*LABELS * 20]
    moments = ClassMoments.of(vectors_of(labels, dimension=dimension), labels)
    class_of = {"apple": "pome", "pear": "pome", "plum": "plum"}
    classifier = fit(classes_of(moments, class_of), 0.1)
    held_out = HeldOut("contents", 5, 60, 50)
    return StoredClassifier(model_id, backbone, classifier, 60, 0.1, 1.5, 4.0, class_of, {}, sources, held_out), moments


class Classified:
    """A published batch version with its classifier, in a warehouse of its own."""

    def __init__(self, folder: Path, sources: tuple[tuple[str, str], ...] = ()) -> None:
        self.warehouse = Warehouse.at(str(folder))
        self.stored, moments = fitted(BACKBONE.id, sources)
        create_classifier(self.warehouse, REFERENCE.path, self.stored, moments)
        labels = ["apple", "pear", "plum", None, "other", "apple", "pear", "plum", "plum"]
        self.features = [self._row(number, *one) for number, one in enumerate(zip(labels, vectors_of(labels, 1), strict=True))]
        files = (self._write("0", self.features[:5]), self._write("1", self.features[5:]))
        self.batch = BatchVersion("2026-01-05", DIGEST, 1, files)

    def _row(self, number: int, label: str | None, vector: np.ndarray[Any, Any]) -> Row:
        row = features_row(0, DIGEST) | {"image_uri": f"s3://landing/{number}.jpg", "content_sha256": sha256(str(number))}
        computed_in = DIGEST if number % 4 else sha256("an earlier manifest")
        return row | {"label": label, "features": vector.tolist(), "computed_in": computed_in}

    def _write(self, name: str, rows: list[Row]) -> str:
        path = f"features/{name}.parquet"
        stage(self.warehouse, path, arrow_schema(FEATURES), rows)
        return path

    def of_batch(self, sources: tuple[tuple[str, str], ...]) -> StoredClassifier:
        """Return the classifier as if it had been fitted on other batch versions."""
        return replace(self.stored, sources=sources)
