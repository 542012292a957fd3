"""The class moments of a batch version: partial ones a file, merged, of the rows that count."""

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.labelled_rows import LabelRule, from_columns
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, write_parts
from orchard_jobs.parquet import read_parquet
from orchard_jobs.scatter import unpack
from orchard_jobs.stages.batch_moments import PartialMoments, stage_moments
from orchard_jobs.stages.staging import OwnPaths, Staging, VersionWriter
from orchard_jobs.storage import DetachedWarehouse, Warehouse
from support.own_process import WORKERS
from support.staged_batch import BACKBONE, BATCH_ID, WORK

UPLOADED_AT = datetime(2026, 1, 5, tzinfo=UTC)
DIMENSION = BACKBONE.dimension


def entry(name: str, label: str | None, *, is_missing: bool = False) -> Entry:
    return Entry(
        f"s3://landing/{name}", name, 1, UPLOADED_AT.isoformat(), label, "keep" if is_missing else "compute", "", None, is_missing
    )


class Version:
    """A batch version whose features files are written as featurize writes them: a file computed, a file kept."""

    def __init__(self, folder: Path, entries: list[Entry], unlabelled: tuple[str, ...] = ()) -> None:
        self.warehouse = Warehouse.at(str(folder))
        parts = list(write_parts(entries))
        missing = sum(one.is_missing for one in entries)
        described = tuple(part for part, _ in parts)
        self.head = ManifestHead(
            BATCH_ID, BACKBONE, 1, None, 10**8, len(entries) - missing, missing, {}, (), (), described, unlabelled=unlabelled
        )
        for part, packed in parts:
            self.warehouse.create(manifest_path(self.head.digest, part.name), packed)
        self.staging = Staging(self.warehouse, OwnPaths(WORK))
        self.partials = PartialMoments(self.staging.paths, self.head)
        self.partition = (BACKBONE.id, BATCH_ID)
        self.rows: list[pa.Table] = []

    def write(self, entries: list[Entry], contents: str, computed_in: str | None = None) -> Any:
        """Write a features file of some entries, a letter of content each."""
        vectors = [np.random.default_rng(ord(content)).random(DIMENSION, np.float32) for content in contents]
        rows = pa.table(
            {
                "image_uri": [one.image_uri for one in entries],
                "etag": [one.etag for one in entries],
                "size_bytes": [one.size_bytes for one in entries],
                "uploaded_at": pa.array([UPLOADED_AT] * len(entries), pa.timestamp("us", tz="UTC")),
                "content_sha256": [hashlib.sha256(content.encode()).hexdigest() for content in contents],
                "label": pa.array([one.label for one in entries], pa.string()),
                "width": pa.array([1] * len(entries), pa.int32()),
                "height": pa.array([1] * len(entries), pa.int32()),
                "features": pa.array([vector.tolist() for vector in vectors], pa.list_(pa.float32())),
                "computed_in": [computed_in or self.head.digest] * len(entries),
            }
        )
        self.rows.append(rows)
        writer = VersionWriter(self.staging.writer(FEATURES, self.partition), self.head.digest, self.partials.write)
        (file,) = writer.write(rows)
        return file

    def class_moments(self, *files: Any) -> tuple[ClassMoments, list[str]] | None:
        """Return the staged class moments and their list of unlabelled labels; None where there are none."""
        staged = stage_moments(WORKERS, self.staging, self.partials, StagedPartition(FEATURES.name, self.partition, files))
        found = [one for one in staged if one.table == "class_moments"]
        if not found:
            return None
        row = read_parquet(self.warehouse, found[0].files[0].path)
        assert row.column("manifest_digest").to_pylist() == [self.head.digest]
        return from_columns(row), row.column("unlabelled")[0].as_py()


def check(found: ClassMoments, expected: ClassMoments) -> None:
    assert (found.labels, found.counts.tolist()) == (expected.labels, expected.counts.tolist())
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-12)
    one, other = (unpack(moments.upper_triangle, DIMENSION) for moments in (found, expected))
    assert np.linalg.norm(one - other) <= 1e-12 * np.linalg.norm(other)


def test_rows_of_all_files_are_merged_label_by_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a version without a missing image no features file is read again."""
    labels = ["apple", "pear", None, "unsorted", "apple", "pear", "apple", "pear"]
    entries = [entry(f"{number}.jpg", label) for number, label in enumerate(labels)]
    version = Version(tmp_path, entries, ("unsorted",))
    files = [version.write(entries[:5], "abcde"), version.write(entries[5:], "fga", "an earlier manifest")]
    with monkeypatch.context() as patched:
        patched.delattr("orchard_jobs.classifier.labelled_rows.open_parquet")
        found = version.class_moments(*files)
    assert found is not None
    assert found[1] == ["unsorted"]
    check(found[0], LabelRule(frozenset(["unsorted"])).moments_of(pa.concat_tables(version.rows)))
    assert found[0].counts.tolist() == [3, 3]


def test_a_missing_image_counts_unless_it_was_moved(tmp_path: Path) -> None:
    computed = [entry(f"pear/{number}.jpg", "pear") for number in range(4)]
    kept = [entry("apple/moved.jpg", "apple", is_missing=True), entry("apple/gone.jpg", "apple", is_missing=True)]
    kept += [entry(f"apple/{number}.jpg", "apple") for number in range(4)]
    version = Version(tmp_path, [*computed, *kept])
    files = [version.write(computed, "abcd"), version.write(kept, "axefgh", "an earlier manifest")]
    found = version.class_moments(*files)
    assert found is not None
    counting = pa.concat_tables([version.rows[0], version.rows[1].slice(1)])
    check(found[0], LabelRule().moments_of(counting))
    assert found[0].counts.tolist() == [5, 4]


def test_a_batch_without_a_label_has_empty_class_moments(tmp_path: Path) -> None:
    entries = [entry(f"{number}.jpg", None) for number in range(8)]
    version = Version(tmp_path, entries)
    found = version.class_moments(version.write(entries, "abcdefgh"))
    assert found is not None
    assert (found[0].n, found[0].labels) == (0, ())


@pytest.mark.parametrize(("labels", "has_some"), [(4, True), (5, False)])
def test_means_may_not_take_more_than_twice_the_features(tmp_path: Path, labels: int, has_some: bool) -> None:
    entries = [entry(f"{number}.jpg", f"label {number % labels}") for number in range(8)]
    version = Version(tmp_path, entries)
    assert (version.class_moments(version.write(entries, "abcdefgh")) is not None) == has_some


def test_a_worker_without_a_network_needs_no_manifest(tmp_path: Path) -> None:
    """It computes listed images alone, so that what is missing does not matter to it."""
    computed, missing = [entry(f"{number}.jpg", "pear") for number in range(4)], entry("gone.jpg", "apple", is_missing=True)
    version = Version(tmp_path, [*computed, missing])
    version.write(computed, "abcd")
    detached = DetachedWarehouse(version.warehouse.uri, {})
    rows = version.rows[0]
    version.partials.write(detached, rows, "features/part-0.parquet")
    created = dict(detached.take_created())
    (of_classes,) = (content for path, content in created.items() if "class_moments" in path)
    assert from_columns(pq.read_table(io.BytesIO(of_classes))).counts.tolist() == [4]
    assert len(created) == 2
