"""The merged moments of published batch versions, and where their class moments are: in the caches, or made from the features."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.class_moments import merge_all as merge_classes
from orchard_jobs.classifier.labelled_rows import rule_of_version
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS
from orchard_jobs.contract.columns import MOMENTS
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import open_parquet, read_parquet
from orchard_jobs.pca.moments import Moments, merge_all
from orchard_jobs.storage import Warehouse

from orchard.models.model import Model, sources_of
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile

log = escaping_logger(__name__)
_ROWS_PER_CHUNK = 4096


def merged_moments(
    tables: Tables, backbone: str, versions: Sequence[BatchVersion], model: Model | None
) -> tuple[Moments, tuple[BatchVersion, ...]]:
    """Return the moments of all rows of some batch versions, sorted by batch, and the versions that they are of.

    They are merged onto a model's own where all that it was merged from is among them, otherwise from the start: nothing
    is ever subtracted. A version is not merged, with a warning, if neither its moments nor its features can be read.
    Holds the moments of log2(versions) batches at a time.
    """
    held = set(model.sources) if model else set()
    damaged: set[BatchVersion] = set()
    if model is None or not held <= set(sources_of(versions)):
        moments = merge_all(_each(tables, backbone, versions, damaged))
    else:
        new = [version for version in versions if (version.batch_id, version.manifest_digest) not in held]
        moments = merge_all([model.moments, merge_all(_each(tables, backbone, new, damaged))])
    return moments, tuple(version for version in versions if version not in damaged)


def _each(tables: Tables, backbone: str, versions: Iterable[BatchVersion], damaged: set[BatchVersion]) -> Iterator[Moments]:
    """Yield the moments of each version, and note those that have none that can be read."""
    cached: dict[str, list[TableFile]] = {}
    for file in tables.load(MOMENTS).files(backbone=backbone):
        cached.setdefault(file.partition["batch_id"], []).append(file)
    for version in versions:
        try:
            found = _of(tables.warehouse, version, cached)
        except DamagedFileError as error:
            log.warning("batch %s is not merged: %s", version.batch_id, error)
            damaged.add(version)
        else:
            yield found


def _of(warehouse: Warehouse, version: BatchVersion, cached: Mapping[str, Sequence[TableFile]]) -> Moments:
    """Return a batch version's moments: the cached ones if they are this version's, else from its features."""
    for file in cached.get(version.batch_id, ()):
        try:
            row = read_parquet(warehouse, file.path)
        except DamagedFileError as error:
            log.warning("the moments of batch %s are computed from its features: %s", version.batch_id, error)
            continue
        if row.column("manifest_digest")[0].as_py() == version.manifest_digest:
            mean, triangle = (row.column(name).combine_chunks().flatten() for name in ("mean", "second_moment"))
            return Moments(row.column("n")[0].as_py(), mean.to_numpy(), triangle.to_numpy())
    return Moments.of_chunks(feature_chunks(warehouse, version))


def feature_chunks(warehouse: Warehouse, version: BatchVersion) -> Iterator[Any]:
    """Yield the features of a batch version, float32 [n, d]; DamagedFileError where a file is lost or damaged."""
    for path in version.files:
        with open_parquet(warehouse, path, is_whole=True) as file:
            for rows in file.iter_batches(_ROWS_PER_CHUNK, columns=["features"]):
                yield rows.column(0).flatten().to_numpy().reshape(rows.num_rows, -1)


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
