"""A fitted classifier as one Parquet file: written once, and read as what predicts or as what a later fit is merged onto."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.fit import Classifier
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.jobs import HoldOut
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import JobError
from orchard_jobs.parquet import open_parquet, pack
from orchard_jobs.scatter import pack as pack_triangle
from orchard_jobs.scatter import unpack
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

# What a batch version is named by: (batch_id, manifest_digest).
Sources = tuple[tuple[str, str], ...]
_PREDICTS = (
    *("model_id", "backbone", "classes", "n", "shrinkage", "temperature", "max_distance", "mean", "whitening", "centres"),
    *("log_priors", "class_of", "left_out", "merged_from", "held_out", "folds", "held_out_rows", "held_out_right"),
)
_MERGES = ("model_id", "mean", "labels", "counts", "means", "scatter", "merged_from")


@dataclass(frozen=True)
class HeldOut:
    """What a classifier's settings and accuracy were found on: rows that the fits they were scored with had not seen.

    Attributes:
        by: `batches` where a part is whole batches, `contents` where it is rows by the digest of their content.
        folds: number of parts.
        rows: held-out rows that were classified.
        right: how many of them got their own class.
    """

    by: HoldOut
    folds: int
    rows: int
    right: int

    @property
    def accuracy(self) -> float:
        """Right / rows; 0 without rows."""
        return self.right / self.rows if self.rows else 0.0


@dataclass(frozen=True, eq=False)
class StoredClassifier:
    """A fitted classifier with what turns its scores and distances into an answer.

    Attributes:
        model_id: its id.
        backbone: full name of the backbone whose features it takes.
        classifier: the discriminant analysis.
        n: labelled rows that it was fitted on.
        shrinkage: the share of the covariance that is a multiple of the unit matrix.
        temperature: what scores are divided by before they become probabilities (`calibration.probabilities`).
        max_distance: a row farther from the mean of its class is none of the classes.
        class_of: the class of each label that has one.
        left_out: rows of each class that had too few.
        sources: (batch_id, manifest_digest) of the batch versions that it was fitted on, sorted.
        held_out: how it did on rows that it had not seen.
    """

    model_id: str
    backbone: str
    classifier: Classifier
    n: int
    shrinkage: float
    temperature: float
    max_distance: float
    class_of: Mapping[str, str]
    left_out: Mapping[str, int]
    sources: Sources
    held_out: HeldOut


def create_classifier(warehouse: Warehouse, path: str, stored: StoredClassifier, moments: ClassMoments) -> None:
    """Write a classifier's file unless it is there: the first that is written counts.

    Args:
        warehouse: where to.
        path: the file, relative to the warehouse.
        stored: the classifier.
        moments: the merged class moments of all labelled rows of its batch versions.
    """
    own, held_out = stored.classifier, stored.held_out
    row = {name: getattr(stored, name) for name in ("model_id", "backbone", "n", "shrinkage", "temperature", "max_distance")}
    row |= {
        "classes": own.classes,
        "mean": own.mean,
        # The transpose has its values in its upper triangle.
        "whitening": pack_triangle(own.whitening.T),
        "centres": own.centres.ravel(),
        "log_priors": own.log_priors,
        "class_of": [{"label": label, "class": name} for label, name in sorted(stored.class_of.items())],
        "left_out": [{"class": name, "rows": rows} for name, rows in sorted(stored.left_out.items())],
        "labels": moments.labels,
        "counts": moments.counts,
        "means": moments.means.ravel(),
        "scatter": moments.upper_triangle,
        "merged_from": [{"batch_id": batch_id, "manifest_digest": digest} for batch_id, digest in stored.sources],
        "held_out": held_out.by,
        "folds": held_out.folds,
        "held_out_rows": held_out.rows,
        "held_out_right": held_out.right,
        "accuracy": held_out.accuracy,
        "created_at": datetime.now(UTC),
    }
    warehouse.create(path, pack(pa.Table.from_pylist([row], arrow_schema(CLASSIFIERS)), use_dictionary=False))


def read_classifier(warehouse: Warehouse, reference: ModelReference) -> StoredClassifier:
    """Return a classifier from its file, without the class moments that it was fitted on.

    Raises:
        DamagedFileError: the file is lost or damaged.
        JobError: it holds another classifier.
    """
    row = _Row.read(warehouse, reference, _PREDICTS)
    classes, mean = tuple(row.value("classes")), row.floats("mean")
    whitening = np.tril(unpack(row.floats("whitening"), mean.size))
    centres = row.floats("centres").reshape(len(classes), mean.size)
    return StoredClassifier(
        model_id=row.value("model_id"),
        backbone=row.value("backbone"),
        classifier=Classifier(classes, mean, whitening, centres, row.floats("log_priors")),
        n=row.value("n"),
        shrinkage=row.value("shrinkage"),
        temperature=row.value("temperature"),
        max_distance=row.value("max_distance"),
        class_of={entry["label"]: entry["class"] for entry in row.value("class_of")},
        left_out={entry["class"]: entry["rows"] for entry in row.value("left_out")},
        sources=row.sources(),
        held_out=HeldOut(row.value("held_out"), row.value("folds"), row.value("held_out_rows"), row.value("held_out_right")),
    )


def read_merged(warehouse: Warehouse, reference: ModelReference) -> tuple[ClassMoments, Sources]:
    """Return the class moments that a classifier was fitted on, and the batch versions that they are of.

    Raises:
        DamagedFileError: the file is lost or damaged.
        JobError: it holds another classifier.
    """
    row = _Row.read(warehouse, reference, _MERGES)
    labels, dimension = tuple(row.value("labels")), row.floats("mean").size
    means = row.floats("means").reshape(len(labels), dimension)
    return ClassMoments(labels, np.array(row.value("counts"), np.int64), means, row.floats("scatter")), row.sources()


def read_label_counts(warehouse: Warehouse, reference: ModelReference) -> dict[str, int]:
    """Return how many rows of each label a classifier was fitted on.

    Raises:
        DamagedFileError: the file is lost or damaged.
        JobError: it holds another classifier.
    """
    row = _Row.read(warehouse, reference, ("model_id", "labels", "counts"))
    return dict(zip(row.value("labels"), row.value("counts"), strict=True))


@dataclass(frozen=True)
class _Row:
    """The one row of a classifier's file."""

    table: pa.Table

    @classmethod
    def read(cls, warehouse: Warehouse, reference: ModelReference, columns: tuple[str, ...]) -> "_Row":
        with open_parquet(warehouse, reference.path) as file:
            row = cls(file.read(list(columns)))
        if row.value("model_id") != reference.model_id:
            holds = f"{warehouse.uri_of(reference.path)} holds classifier {row.value('model_id')}, not {reference.model_id}"
            raise JobError(f"{holds}: start a new run")
        return row

    def value(self, name: str) -> Any:
        return self.table.column(name)[0].as_py()

    def floats(self, name: str) -> Any:
        return self.table.column(name).combine_chunks().flatten().to_numpy()

    def sources(self) -> Sources:
        return tuple((source["batch_id"], source["manifest_digest"]) for source in self.value("merged_from"))
