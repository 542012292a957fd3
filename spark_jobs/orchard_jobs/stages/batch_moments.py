"""The moments of a batch version: partial ones where the features are written, merged by one task."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from orchard_jobs.contract.columns import MOMENTS
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.stages.staging import OwnPaths, StagedWriter, Staging, files_from_json, files_to_json, lists, vectors
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

_ROWS_AT_ONCE = 1024


def has_moments(head: ManifestHead, rows: int) -> bool:
    """Tell whether a version of so many features rows gets a moments file: one no larger than its features."""
    return rows >= head.backbone.dimension / 2


@dataclass(frozen=True)
class PartialMoments:
    """The moments of each features file's rows, as scratch files; can be pickled to a worker.

    A scratch file is named by the features file, so that what a task left behind that was run again counts for nothing.
    """

    paths: OwnPaths

    def write(self, warehouse: Warehouse, rows: pa.Table, features_path: str) -> None:
        """Write the moments of the rows of a features file."""
        column = rows.column("features")
        chunks = (column.slice(first, _ROWS_AT_ONCE) for first in range(0, len(column), _ROWS_AT_ONCE))
        moments = Moments.of_chunks(vectors(chunk) for chunk in chunks)
        packed = np.concatenate([[float(moments.n)], moments.mean, moments.upper_triangle])
        warehouse.create(self._path(features_path), packed.tobytes())

    def read(self, warehouse: Warehouse, features_path: str) -> Moments:
        """Return the moments of the rows of a features file."""
        numbers = np.frombuffer(warehouse.read(self._path(features_path)))
        # 1 + d + d (d + 1) / 2 numbers
        dimension = (math.isqrt(1 + 8 * numbers.size) - 3) // 2
        return Moments(int(numbers[0]), numbers[1 : 1 + dimension], numbers[1 + dimension :])

    def _path(self, features_path: str) -> str:
        return self.paths.scratch(f"moments/{PurePosixPath(features_path).stem}")


def stage_moments(
    workers: Workers, staging: Staging, head: ManifestHead, partials: PartialMoments, features: StagedPartition
) -> StagedPartition:
    """Stage the version's moments, merged in a worker so that the driver needs no memory for them."""
    partition = (head.backbone.id, head.batch_id)
    paths = tuple(file.path for file in features.files)
    merging = partial(_merge, digest=head.digest, partials=partials, paths=paths, writer=staging.writer(MOMENTS, partition))
    return StagedPartition(MOMENTS.name, partition, files_from_json(workers.run(1, merging)))


def _merge(_: int, digest: str, partials: PartialMoments, paths: tuple[str, ...], writer: StagedWriter) -> str:
    """Write the merged moments of some features files, holding few at a time; return the file as JSON."""
    merged = merge_all(partials.read(writer.warehouse, path) for path in paths)
    columns = [[digest], [merged.n], lists(merged.mean[np.newaxis]), lists(merged.upper_triangle[np.newaxis])]
    rows = pa.Table.from_arrays([pa.array(column) for column in columns], schema=arrow_schema(MOMENTS))
    return files_to_json((writer.write(rows),))
