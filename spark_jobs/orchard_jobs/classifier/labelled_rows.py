"""Which rows of a batch version teach a classifier, and the class moments of features files.

A row counts under its label unless that is null or means no label. The row of a missing image does not count where its
content is listed under another label: somebody moved the image to relabel it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from orchard_jobs.classifier.class_moments import ClassMoments, merge_all
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import ManifestHead, read_part
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import Warehouse

log = escaping_logger(__name__)
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class LabelRule:
    """Which rows count.

    Attributes:
        unlabelled: labels that mean no label.
        moved: the URIs of missing images whose content is listed under another label.
    """

    unlabelled: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()

    @classmethod
    def of(cls, warehouse: Warehouse, unlabelled: Iterable[str], missing: frozenset[str], paths: tuple[str, ...]) -> "LabelRule":
        """Return the rule of a version whose features files are `paths`; reads them only where images are missing."""
        return cls(frozenset(unlabelled), moved_images(warehouse, paths, missing) if missing else frozenset())

    def labels_of(self, rows: pa.Table | pa.RecordBatch) -> list[str | None]:
        """Return the label under which each row counts; None where it does not."""
        pairs = zip(rows.column("image_uri").to_pylist(), rows.column("label").to_pylist(), strict=True)
        return [None if label in self.unlabelled or uri in self.moved else label for uri, label in pairs]

    def moments_of(self, rows: pa.Table) -> ClassMoments:
        """Return the class moments of those rows that count, in chunks of 1,024."""
        return merge_all(self._of_chunk(rows.slice(first, _ROWS_AT_ONCE)) for first in range(0, rows.num_rows, _ROWS_AT_ONCE))

    def moments_of_files(self, warehouse: Warehouse, paths: Iterable[str]) -> Iterator[ClassMoments]:
        """Yield the class moments of each features file; DamagedFileError where one is lost or damaged."""
        for path in paths:
            with open_parquet(warehouse, path, is_whole=True) as file:
                yield self.moments_of(file.read(["image_uri", "label", "features"]))

    def _of_chunk(self, rows: pa.Table) -> ClassMoments:
        labels = self.labels_of(rows)
        counted = [position for position, label in enumerate(labels) if label is not None]
        features = rows.column("features").combine_chunks()
        matrix = features.flatten().to_numpy(zero_copy_only=False).reshape(len(labels), -1)
        return ClassMoments.of(matrix[counted], [label for label in labels if label is not None])


def rule_of_version(warehouse: Warehouse, version: BatchVersion, unlabelled: Iterable[str]) -> LabelRule:
    """Return which rows of a published batch version count. Its manifest tells what was missing; without it, all are listed."""
    try:
        head = ManifestHead.from_json(warehouse.read(manifest_path(version.manifest_digest)))
        missing = missing_images(warehouse, head)
    except (DamagedFileError, ValueError, TypeError, KeyError) as error:
        log.warning("batch %s counts no image as missing: %s", version.batch_id, error)
        missing = frozenset()
    return LabelRule.of(warehouse, unlabelled, missing, version.files)


def missing_images(warehouse: Warehouse, head: ManifestHead) -> frozenset[str]:
    """Return the URIs of a manifest's missing images, where some have a features row; else reads nothing and returns none.

    Raises:
        DamagedFileError: a part of the manifest is gone.
    """
    return _missing(warehouse, head.digest, tuple(part.name for part in head.parts)) if head.missing_good else frozenset()


@lru_cache(maxsize=2)
def _missing(warehouse: Warehouse, digest: str, parts: tuple[str, ...]) -> frozenset[str]:
    """Return the URIs of a manifest's missing images; read once a worker process."""
    packed = (warehouse.read(manifest_path(digest, name)) for name in parts)
    return frozenset(entry.image_uri for part in packed for entry in read_part(part) if entry.is_missing)


def moved_images(warehouse: Warehouse, paths: Iterable[str], missing: frozenset[str]) -> frozenset[str]:
    """Return the missing images whose content a version's features files also hold listed, under another label or none."""
    paths = tuple(paths)
    gone = [row for row in _identities(warehouse, paths) if row[0] in missing]
    listed: dict[str, set[str | None]] = {content: set() for _, content, _ in gone}
    for uri, content, label in _identities(warehouse, paths):
        if content in listed and uri not in missing:
            listed[content].add(label)
    return frozenset(uri for uri, content, label in gone if listed[content] - {label})


def _identities(warehouse: Warehouse, paths: tuple[str, ...]) -> Iterator[tuple[str, str, str | None]]:
    for path in paths:
        with open_parquet(warehouse, path) as file:
            rows = file.read(["image_uri", "content_sha256", "label"])
            yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def to_columns(moments: ClassMoments) -> dict[str, pa.Array]:
    """Return class moments as columns of one row: labels, counts, means and scatter."""
    columns = {
        "labels": pa.array(moments.labels, pa.string()),
        "counts": pa.array(moments.counts),
        "means": pa.array(np.ascontiguousarray(moments.means).ravel()),
        "scatter": pa.array(moments.upper_triangle),
    }
    return {name: pa.ListArray.from_arrays([0, len(values)], values) for name, values in columns.items()}


def from_columns(row: pa.Table) -> ClassMoments:
    """Return the class moments of a table of one row that has the columns of `to_columns`."""
    labels, counts, means, scatter = (
        row.column(name).combine_chunks().flatten() for name in ("labels", "counts", "means", "scatter")
    )
    # d (d + 1) / 2 numbers
    dimension = (math.isqrt(1 + 8 * len(scatter)) - 1) // 2
    matrix = means.to_numpy().reshape(len(labels), dimension)
    return ClassMoments(tuple(labels.to_pylist()), counts.to_numpy(), matrix, scatter.to_numpy())
