"""The merged moments and class moments of published batch versions, from the caches of them or from the features themselves."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.class_moments import merge_all as merge_classes
from orchard_jobs.classifier.labelled_rows import from_columns, rule_of_version
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS
from orchard_jobs.contract.columns import MOMENTS, Table
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import open_parquet, read_parquet
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.storage import Warehouse

from orchard.models.model import MergedVersion, Model, sources_of
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile

log = escaping_logger(__name__)
_ROWS_PER_CHUNK = 4096
Statistics = TypeVar("Statistics")


@dataclass(frozen=True)
class _Kind(Generic[Statistics]):
    """One kind of statistics that merge.

    Attributes:
        cache: the table that holds those of batch versions.
        read: takes a row of it; None where the row is of no use.
        compute: makes a version's from its features; DamagedFileError where they are lost or damaged.
        merge: merges any number.
    """

    cache: Table
    read: Callable[[pa.Table], Statistics | None]
    compute: Callable[[BatchVersion], Statistics]
    merge: Callable[[Iterable[Statistics]], Statistics]


def merged_moments(
    tables: Tables, backbone: str, versions: Sequence[BatchVersion], model: Model | None
) -> tuple[Moments, tuple[BatchVersion, ...]]:
    """Return the moments of all rows of some batch versions, sorted by batch, and the versions that they are of.

    They are merged onto a model's own where all that it was merged from is among them, otherwise from the start: nothing
    is ever subtracted. A version is not merged, with a warning, if neither its moments nor its features can be read.
    Holds the moments of log2(versions) batches at a time.
    """
    kind = _Kind(MOMENTS, _moments_in, lambda version: Moments.of_chunks(feature_chunks(tables.warehouse, version)), merge_all)
    return _merged(tables, backbone, versions, kind, (model.moments, model.sources) if model else None)


def merged_class_moments(
    tables: Tables,
    backbone: str,
    versions: Sequence[BatchVersion],
    unlabelled: tuple[str, ...],
    onto: tuple[ClassMoments, tuple[MergedVersion, ...]] | None,
) -> tuple[ClassMoments, tuple[BatchVersion, ...]]:
    """Return the class moments of the labelled rows of some batch versions, and the versions that they are of.

    As `merged_moments`, with a fitted classifier's class moments and sources to merge onto. Versions whose class moments are of
    another list of unlabelled labels, or are not there, take theirs from their features, a file at a time in this process.
    """
    kind = _Kind(
        CLASS_MOMENTS,
        lambda row: from_columns(row) if row.column("unlabelled")[0].as_py() == list(unlabelled) else None,
        lambda version: class_moments_of(tables.warehouse, version, unlabelled),
        merge_classes,
    )
    return _merged(tables, backbone, versions, kind, onto)


def class_moments_files(
    tables: Tables, backbone: str, versions: Sequence[BatchVersion], unlabelled: tuple[str, ...]
) -> dict[BatchVersion, str]:
    """Return the file of `class_moments` of each batch version that has one, of this list of unlabelled labels."""
    wanted = {(version.batch_id, version.manifest_digest): version for version in versions}
    found = {}
    for file in tables.load(CLASS_MOMENTS).files(backbone=backbone):
        try:
            with open_parquet(tables.warehouse, file.path) as opened:
                (row,) = opened.read(["manifest_digest", "unlabelled"]).to_pylist()
        except DamagedFileError as error:
            log.warning("the class moments of batch %s are not used: %s", file.partition["batch_id"], error)
            continue
        version = wanted.get((file.partition["batch_id"], row["manifest_digest"]))
        if version is not None and row["unlabelled"] == list(unlabelled):
            found[version] = file.path
    return found


def class_moments_of(warehouse: Warehouse, version: BatchVersion, unlabelled: tuple[str, ...]) -> ClassMoments:
    """Return the class moments of a batch version from its features; DamagedFileError where a file is lost or damaged."""
    return merge_classes(rule_of_version(warehouse, version, unlabelled).moments_of_files(warehouse, version.files))


def _merged(
    tables: Tables,
    backbone: str,
    versions: Sequence[BatchVersion],
    kind: _Kind[Statistics],
    onto: tuple[Statistics, tuple[MergedVersion, ...]] | None,
) -> tuple[Statistics, tuple[BatchVersion, ...]]:
    """Merge onto what is there where all that it was merged from is among the versions, otherwise from the start."""
    damaged: set[BatchVersion] = set()
    if onto is None or not set(onto[1]) <= set(sources_of(versions)):
        merged = kind.merge(_each(tables, backbone, versions, kind, damaged))
    else:
        held = set(onto[1])
        new = [version for version in versions if (version.batch_id, version.manifest_digest) not in held]
        merged = kind.merge([onto[0], kind.merge(_each(tables, backbone, new, kind, damaged))])
    return merged, tuple(version for version in versions if version not in damaged)


def _each(
    tables: Tables, backbone: str, versions: Iterable[BatchVersion], kind: _Kind[Statistics], damaged: set[BatchVersion]
) -> Iterator[Statistics]:
    """Yield the statistics of each version, and note those that have none that can be read."""
    cached: dict[str, list[TableFile]] = {}
    for file in tables.load(kind.cache).files(backbone=backbone):
        cached.setdefault(file.partition["batch_id"], []).append(file)
    for version in versions:
        try:
            found = _of(tables.warehouse, version, cached, kind)
        except DamagedFileError as error:
            log.warning("batch %s is not merged: %s", version.batch_id, error)
            damaged.add(version)
        else:
            yield found


def _of(
    warehouse: Warehouse, version: BatchVersion, cached: Mapping[str, Sequence[TableFile]], kind: _Kind[Statistics]
) -> Statistics:
    """Return a batch version's statistics: the cached ones if they are this version's, else from its features."""
    for file in cached.get(version.batch_id, ()):
        try:
            row = read_parquet(warehouse, file.path)
        except DamagedFileError as error:
            log.warning("the %s of batch %s are computed from its features: %s", kind.cache.name, version.batch_id, error)
            continue
        is_own = row.column("manifest_digest")[0].as_py() == version.manifest_digest
        found = kind.read(row) if is_own else None
        if found is not None:
            return found
    return kind.compute(version)


def _moments_in(row: pa.Table) -> Moments:
    mean, triangle = (row.column(name).combine_chunks().flatten() for name in ("mean", "second_moment"))
    return Moments(row.column("n")[0].as_py(), mean.to_numpy(), triangle.to_numpy())


def feature_chunks(warehouse: Warehouse, version: BatchVersion) -> Iterator[Any]:
    """Yield the features of a batch version, float32 [n, d]; DamagedFileError where a file is lost or damaged."""
    for path in version.files:
        with open_parquet(warehouse, path, is_whole=True) as file:
            for rows in file.iter_batches(_ROWS_PER_CHUNK, columns=["features"]):
                yield rows.column(0).flatten().to_numpy().reshape(rows.num_rows, -1)
