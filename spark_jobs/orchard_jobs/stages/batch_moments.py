"""The moments and class moments of a batch version: partial ones where the features are written, merged by a task each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.class_moments import merge_all as merge_classes
from orchard_jobs.classifier.labelled_rows import LabelRule, from_columns, missing_images, to_columns
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS
from orchard_jobs.contract.columns import MOMENTS, Table
from orchard_jobs.contract.jobs import StagedFile, StagedPartition
from orchard_jobs.contract.locations import name_of
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.parquet import pack, read_parquet
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.stages.staging import OwnPaths, StagedWriter, Staging, files_from_json, files_to_json, lists, vectors
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

_ROWS_AT_ONCE = 1024


def has_moments(head: ManifestHead, rows: int) -> bool:
    """Tell whether a version of so many features rows gets a moments file: one at most twice as large as its features."""
    return rows >= head.backbone.dimension / 2


@dataclass(frozen=True)
class PartialMoments:
    """The moments and class moments of each features file's rows, as scratch files; can be pickled to a worker.

    A scratch file is named by the features file, so that what a repeated task left behind does not count.

    Attributes:
        paths: where the scratch files go.
        head: the manifest's head.
    """

    paths: OwnPaths
    head: ManifestHead

    def write(self, warehouse: Warehouse, rows: pa.Table, features_path: str) -> None:
        """Write the moments of the rows of a features file; class moments only of a file without a missing image.

        Whether a missing image counts is known once all files are written.
        """
        column = rows.column("features")
        chunks = (column.slice(first, _ROWS_AT_ONCE) for first in range(0, len(column), _ROWS_AT_ONCE))
        moments = Moments.of_chunks(vectors(chunk) for chunk in chunks)
        packed = np.concatenate([[float(moments.n)], moments.mean, moments.upper_triangle])
        warehouse.create(self._path(features_path, MOMENTS), packed.tobytes())
        if not self._has_missing(warehouse, rows):
            counted = LabelRule(frozenset(self.head.unlabelled)).moments_of(rows)
            warehouse.create(self._path(features_path, CLASS_MOMENTS), pack(pa.table(to_columns(counted)), use_dictionary=False))

    def read(self, warehouse: Warehouse, features_path: str) -> Moments:
        """Return the moments of the rows of a features file."""
        numbers = np.frombuffer(warehouse.read(self._path(features_path, MOMENTS)))
        # 1 + d + d (d + 1) / 2 numbers
        dimension = (math.isqrt(1 + 8 * numbers.size) - 3) // 2
        return Moments(int(numbers[0]), numbers[1 : 1 + dimension], numbers[1 + dimension :])

    def read_classes(self, warehouse: Warehouse, features_path: str, rule: LabelRule) -> ClassMoments:
        """Return the class moments of the rows of a features file that count by a rule."""
        path = self._path(features_path, CLASS_MOMENTS)
        if warehouse.size(path) is None:
            return rule.moments_of(read_parquet(warehouse, features_path))
        return from_columns(read_parquet(warehouse, path))

    def _has_missing(self, warehouse: Warehouse, rows: pa.Table) -> bool:
        """Tell whether a missing image is among some rows; what this version's job computed is listed."""
        if set(rows.column("computed_in").to_pylist()) == {self.head.digest}:
            return False
        return not missing_images(warehouse, self.head).isdisjoint(rows.column("image_uri").to_pylist())

    def _path(self, features_path: str, table: Table) -> str:
        # Without the ending: a Parquet file's name would be taken for the SHA-256 of its content.
        return self.paths.scratch(table.name, name_of(features_path).removesuffix(".parquet"))


def stage_moments(
    workers: Workers, staging: Staging, partials: PartialMoments, features: StagedPartition
) -> tuple[StagedPartition, ...]:
    """Stage the version's moments and class moments, merged in workers so that the driver needs no memory for them."""
    writers = tuple(staging.writer(table, features.partition) for table in _MERGES)
    merged = workers.run(len(writers), partial(_merge, partials=partials, features=features, writers=writers))
    staged = ((table.name, files_from_json([text])) for table, text in zip(_MERGES, merged, strict=True))
    return tuple(StagedPartition(name, features.partition, files) for name, files in staged if files)


def _merge(number: int, partials: PartialMoments, features: StagedPartition, writers: tuple[StagedWriter, ...]) -> str:
    """Write the merged moments of some features files, holding few at a time; return the file, if there is one, as JSON."""
    return files_to_json(_MERGES[writers[number].table](partials, features, writers[number]))


def _merge_moments(partials: PartialMoments, features: StagedPartition, writer: StagedWriter) -> tuple[StagedFile, ...]:
    merged = merge_all(partials.read(writer.warehouse, file.path) for file in features.files)
    columns = [[partials.head.digest], [merged.n], lists(merged.mean[np.newaxis]), lists(merged.upper_triangle[np.newaxis])]
    rows = pa.Table.from_arrays([pa.array(column) for column in columns], schema=arrow_schema(MOMENTS))
    return (writer.write(rows),)


def _merge_classes(partials: PartialMoments, features: StagedPartition, writer: StagedWriter) -> tuple[StagedFile, ...]:
    head, paths = partials.head, tuple(file.path for file in features.files)
    rule = LabelRule.of(writer.warehouse, head.unlabelled, missing_images(writer.warehouse, head), paths)
    merged = merge_classes(partials.read_classes(writer.warehouse, path, rule) for path in paths)
    # By the same rule: the mean of a label is as large as two rows of features.
    if not has_moments(head, features.rows - len(merged.labels)):
        return ()
    stamps = {"manifest_digest": pa.array([head.digest]), "unlabelled": pa.array([head.unlabelled], pa.list_(pa.string()))}
    return (writer.write(pa.table(stamps | to_columns(merged))),)


_MERGES: dict[Table, Callable[[PartialMoments, StagedPartition, StagedWriter], tuple[StagedFile, ...]]] = {
    MOMENTS: _merge_moments,
    CLASS_MOMENTS: _merge_classes,
}
