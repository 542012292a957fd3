"""Copied rows: exactly the wanted ones, in files of bounded size, and an error where one is in no file."""

from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, write_parts
from orchard_jobs.errors import JobError
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.stages import copied_rows
from orchard_jobs.stages.copied_rows import copy_kept, copy_vectors
from orchard_jobs.stages.staging import OwnPaths, StagedWriter, VersionWriter
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

AT = "2026-01-01T12:00:00.000001+00:00"


# It runs the tasks here, and needs no session for that.
NO_SPARK: Any = None
WORKERS = Workers(NO_SPARK, "spark")
PATHS = OwnPaths("a" * 64)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copied_rows, "ROWS_PER_FILE", 4)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.at(str(tmp_path))


@pytest.fixture
def writer(warehouse: Warehouse) -> VersionWriter:
    return VersionWriter(StagedWriter(warehouse, FEATURES, ("backbone", "b"), PATHS), "f" * 64)


def entry(name: str, **changes: Any) -> Entry:
    return replace(Entry(f"s3://b/{name}", f"etag of {name}", 7, AT, "kiwi", "keep"), **changes)


def published(warehouse: Warehouse, path: str, *names: str, etag: str | None = None) -> str:
    rows = [
        {
            "image_uri": f"s3://b/{name}",
            "etag": etag or f"etag of {name}",
            "size_bytes": 7,
            "uploaded_at": datetime.fromisoformat(AT),
            "label": None,
            "content_sha256": f"content of {name}",
            "width": 2,
            "height": 3,
            "features": [float(len(path)), float(ord(name[0]))],
            "manifest_digest": "0" * 64,
            "computed_in": "1" * 64,
            "jobs_version": "0",
        }
        for name in names
    ]
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(FEATURES)])
    target = Path(warehouse.uri.removeprefix("file://")) / path
    pq.write_table(pa.Table.from_pylist(rows, schema), target)
    return path


def frozen(warehouse: Warehouse, *entries: Entry) -> ManifestHead:
    parts = list(write_parts(sorted(entries, key=lambda one: one.image_uri)))
    actions: dict[str, int] = dict(Counter(one.action for one in entries))
    named = tuple(part for part, _ in parts)
    head = ManifestHead("b", backbone_named("resnet50"), 2, None, 10, len(entries), 0, actions, (), (), named)
    for part, packed in parts:
        warehouse.create(manifest_path(head.digest, part.name), packed)
    return head


def rows_of(warehouse: Warehouse, files: Any) -> list[list[dict[str, Any]]]:
    return [pq.ParquetFile(warehouse.open(file.path)).read().to_pylist() for file in files]


def test_kept_rows_are_those_of_uri_and_etag(warehouse: Warehouse, writer: VersionWriter) -> None:
    """The row of a former content of the same key stays behind."""
    old = published(warehouse, "old.parquet", "a", etag="former")
    now = published(warehouse, "now.parquet", "a", "b", "c")
    head = frozen(warehouse, entry("a"), entry("c"), entry("d", action="compute"))
    ((first, second),) = rows_of(warehouse, copy_kept(WORKERS, head, (old, now), "keep", writer))
    assert [row["image_uri"] for row in (first, second)] == ["s3://b/a", "s3://b/c"]
    assert first["etag"] == "etag of a"
    assert (first["manifest_digest"], first["computed_in"]) == ("f" * 64, "1" * 64)


def test_small_files_are_merged_up_to_the_bound(warehouse: Warehouse, writer: VersionWriter) -> None:
    names = "abcdef"
    paths = tuple(published(warehouse, f"{name}.parquet", name) for name in names)
    files = copy_kept(WORKERS, frozen(warehouse, *map(entry, names)), paths, "keep", writer)
    assert [file.rows for file in files] == [4, 2]


def test_a_kept_row_that_is_in_no_file_is_told(warehouse: Warehouse, writer: VersionWriter) -> None:
    path = published(warehouse, "now.parquet", "a")
    with pytest.raises(JobError, match="hold 1 of the 2 rows to keep"):
        copy_kept(WORKERS, frozen(warehouse, entry("a"), entry("b")), (path,), "keep", writer)


def test_vectors_go_to_each_entry_of_their_content(warehouse: Warehouse, writer: VersionWriter) -> None:
    """From the first file that holds it, in files of bounded size, however many entries or files there are."""
    paths = tuple(published(warehouse, f"{name * 3}.parquet", name, "x") for name in "abc")
    wanted = [entry(f"new {n}", action="reuse", content_sha256=f"content of {'abcx'[n % 4]}") for n in range(10)]
    files = rows_of(warehouse, copy_vectors(WORKERS, paths, wanted, PATHS, writer))
    assert [len(rows) for rows in files] == [4, 4, 2]
    rows = {row["image_uri"]: row for of_file in files for row in of_file}
    for one in wanted:
        row = rows[one.image_uri]
        assert row["features"][1] == float(ord(str(one.content_sha256)[-1]))
        assert (row["etag"], row["label"], row["content_sha256"]) == (one.etag, "kiwi", one.content_sha256)
    assert len({row["features"][0] for row in rows.values() if row["content_sha256"] == "content of x"}) == 1


def test_a_content_that_is_in_no_file_is_told(warehouse: Warehouse, writer: VersionWriter) -> None:
    path = published(warehouse, "now.parquet", "a")
    with pytest.raises(JobError, match="no file of the manifest holds content content of b of 's3://b/new'"):
        copy_vectors(WORKERS, (path,), [entry("new", action="reuse", content_sha256="content of b")], PATHS, writer)
