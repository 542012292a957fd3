"""Embed and classify single images outside of a batch, as the jobs would do it for the same bytes. No Spark, no table.

Features are equal to the published ones bit for bit, for the backbone gives one image the same numbers in any batch. Their
projection is computed row by row here and in chunks there, so it agrees within the rounding of float32.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.classifier.predict import predict
from orchard_jobs.classifier.stored import StoredClassifier, read_classifier
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.images.decode import Rejected
from orchard_jobs.images.guarded import decode
from orchard_jobs.images.loaded_backbone import LoadedBackbone, load_backbone, prepare_backbone
from orchard_jobs.images.vectors import vectors_of
from orchard_jobs.pca.basis import read_basis
from orchard_jobs.pca.coordinates import project
from orchard_jobs.scatter import Floats
from orchard_jobs.storage import Warehouse


@dataclass(frozen=True, eq=False)
class Embedded:
    """A good image.

    Attributes:
        content_sha256: 64 hex digits, of the file's bytes.
        width: pixels after EXIF rotation.
        height: likewise.
        features: float32 [dimension].
        pca_features: float32 [k]; None without a model.
    """

    content_sha256: str
    width: int
    height: int
    features: NDArray[np.float32]
    pca_features: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Embedder:
    """A loaded backbone and, where there is one, a model's basis: (mean [d], components [k, d])."""

    backbone: LoadedBackbone
    basis: tuple[Floats, Floats] | None
    pixel_limit: int

    @classmethod
    def load(cls, warehouse: Warehouse, backbone: Backbone, model: ModelReference | None, pixel_limit: int) -> "Embedder":
        """Load once, embed often; a backbone that was never exported is exported first.

        Raises:
            ConfigurationError: a package or the weights are missing.
            JobError: the model's file is gone, or holds another model.
        """
        prepare_backbone(backbone, warehouse)
        basis = read_basis(warehouse, model) if model else None
        return cls(load_backbone(backbone, warehouse), basis, pixel_limit)

    def embed(self, content: bytes) -> Embedded | Rejected:
        """Return an image's vectors, or why it would be quarantined; never raises for a bad image."""
        found = decode(content, self.pixel_limit, self.backbone.input_pixels, self.backbone.views)
        if isinstance(found, Rejected):
            return found
        features = vectors_of(self.backbone, found.squares[np.newaxis])
        projected = project(features, *self.basis)[0].astype(np.float32) if self.basis else None
        return Embedded(hashlib.sha256(content).hexdigest(), found.width, found.height, features[0], projected)


@dataclass(frozen=True)
class Classified:
    """What a classifier says of a good image.

    Attributes:
        content_sha256: 64 hex digits, of the file's bytes.
        width: pixels after EXIF rotation.
        height: likewise.
        predicted: the likeliest class.
        score: its calibrated probability.
        second: the runner-up.
        second_score: its calibrated probability.
        distance: to the mean of the likeliest class (Mahalanobis).
        max_distance: the largest distance of a known image.
        is_known: whether the distance is not above it; otherwise the image shows none of the classes.
    """

    content_sha256: str
    width: int
    height: int
    predicted: str
    score: float
    second: str
    second_score: float
    distance: float
    max_distance: float
    is_known: bool


@dataclass(frozen=True, eq=False)
class Recognizer:
    """A loaded backbone and a fitted classifier of its features."""

    embedder: Embedder
    stored: StoredClassifier

    @classmethod
    def load(cls, warehouse: Warehouse, backbone: Backbone, reference: ModelReference, pixel_limit: int) -> "Recognizer":
        """Load once, classify often; a backbone that was never exported is exported first.

        Raises:
            ConfigurationError: a package or the weights are missing, or the classifier is another backbone's.
            JobError: the classifier's file is gone, or holds another one.
        """
        stored = read_classifier(warehouse, reference)
        if stored.backbone != backbone.id:
            raise ConfigurationError(
                f"classifier {stored.model_id} was fitted on features of {stored.backbone}, the backbone given is {backbone.id}: "
                "give the two that belong together"
            )
        return cls(Embedder.load(warehouse, backbone, None, pixel_limit), stored)

    def classify(self, content: bytes) -> Classified | Rejected:
        """Return what an image shows, or why it would be quarantined; never raises for a bad image."""
        found = self.embedder.embed(content)
        if isinstance(found, Rejected):
            return found
        told = predict(found.features[np.newaxis], self.stored)
        (predicted,), (second,) = told.names(0), told.names(1)
        score, second_score = (float(value) for value in told.scores[0, :2])
        distance, is_known = float(told.distance[0]), bool(told.is_known[0])
        rest = (predicted, score, second, second_score, distance, self.stored.max_distance, is_known)
        return Classified(found.content_sha256, found.width, found.height, *rest)
