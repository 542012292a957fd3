"""The class moments of published batch versions in one: from the files that a fit would take, else from the features."""

from collections.abc import Sequence

from orchard.models.merged_moments import class_moments_files, class_moments_of
from orchard.tables.commit_rule import Tables
from orchard_jobs.classifier.class_moments import ClassMoments, merge_all
from orchard_jobs.classifier.labelled_rows import from_columns
from orchard_jobs.contract.jobs import BatchVersion
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.parquet import read_parquet


def merged_class_moments(
    tables: Tables, backbone: str, versions: Sequence[BatchVersion], unlabelled: tuple[str, ...]
) -> ClassMoments:
    """Return the class moments of the labelled rows of all versions."""
    files = class_moments_files(tables, backbone, versions, unlabelled)

    def of(version: BatchVersion) -> ClassMoments:
        try:
            if version in files:
                return from_columns(read_parquet(tables.warehouse, files[version]))
        except DamagedFileError:
            pass
        return class_moments_of(tables.warehouse, version, unlabelled)

    return merge_all(map(of, versions))
