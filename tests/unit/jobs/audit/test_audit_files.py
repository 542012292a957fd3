"""The audit of a staged batch's files: size, digest, schema and rows are those of the report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.audit.file_checks import read_rows
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.errors import AuditError
from orchard_jobs.schemas import arrow_schema
from support.staged_batch import StagedBatch, failed, judge, nullable

POLICY = AuditPolicy()


def rewrite(folder: Path, path: str, change: Callable[[bytes], bytes]) -> None:
    (folder / path).write_bytes(change((folder / path).read_bytes()))


@pytest.mark.parametrize(
    "schema",
    [
        nullable(arrow_schema(FEATURES)).remove(3),
        pa.schema([nullable(arrow_schema(FEATURES)).field(i) for i in (1, 0, *range(2, 12))]),
        nullable(arrow_schema(FEATURES)).set(2, pa.field("size_bytes", pa.int32())),
        nullable(arrow_schema(FEATURES)).set(8, pa.field("features", pa.list_(pa.float64()))),
        nullable(arrow_schema(FEATURES)).set(3, pa.field("uploaded_at", pa.timestamp("us"))),
    ],
)
def test_a_file_of_another_schema_fails(schema: pa.Schema, tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.schemas[FEATURES.name] = schema
    verdict = judge(batch, tmp_path)
    assert failed(verdict) == {"schema"}
    assert verdict.warnings == ("rows were not checked, because a file check failed",)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content + b"x", "bytes, not"),
        (lambda content: content[:-1], "bytes, not"),
        (lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:], "has SHA-256"),
    ],
)
@pytest.mark.parametrize("stage", ["featurize", "reduce"])
def test_a_file_that_changed_after_the_report_fails(
    stage: str, change: Callable[[bytes], bytes], text: str, tmp_path: Path
) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    report = featurize if stage == "featurize" else reduce
    path = report.partitions[-1].files[0].path
    rewrite(tmp_path, path, change)
    verdict = audit_batch(warehouse, batch.head, featurize, reduce, POLICY)
    assert failed(verdict) == {"files"}
    assert verdict.failures[0].where == (path,)
    assert text in verdict.failures[0].examples[0]


def test_a_file_that_is_gone_fails(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    (tmp_path / featurize.partitions[0].files[1].path).unlink()
    assert failed(audit_batch(warehouse, batch.head, featurize, reduce, POLICY)) == {"files"}


def test_a_file_of_the_table_that_the_report_does_not_name_is_not_read(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    (tmp_path / Path(featurize.partitions[0].files[0].path).parent / "9.parquet").write_bytes(b"left over")
    assert audit_batch(warehouse, batch.head, featurize, reduce, POLICY).has_passed


def test_a_file_that_is_not_parquet_fails(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    (partition, *others) = featurize.partitions
    file = partition.files[0]
    rewrite(tmp_path, file.path, lambda content: b"x" * len(content))
    files = (replace(file, sha256=warehouse.sha256(file.path)), *partition.files[1:])
    featurize = replace(featurize, partitions=(replace(partition, files=files), *others))
    assert failed(audit_batch(warehouse, batch.head, featurize, reduce, POLICY)) == {"schema"}


def test_rows_that_the_report_does_not_count_fail(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    (partition, *others) = featurize.partitions
    files = (replace(partition.files[0], rows=99), *partition.files[1:])
    featurize = replace(featurize, partitions=(replace(partition, files=files), *others))
    assert failed(audit_batch(warehouse, batch.head, featurize, reduce, POLICY)) == {"rows"}


def test_a_file_that_cannot_be_decoded_fails_the_audit(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    (partition, *others) = featurize.partitions
    file = partition.files[0]
    rewrite(tmp_path, file.path, lambda content: content[:4] + b"\xff" * 60 + content[64:])
    files = (replace(file, sha256=warehouse.sha256(file.path)), *partition.files[1:])
    featurize = replace(featurize, partitions=(replace(partition, files=files), *others))
    with pytest.raises(AuditError, match="cannot be decoded, stage it again"):
        audit_batch(warehouse, batch.head, featurize, reduce, POLICY)


def test_a_read_that_breaks_off_fails_the_audit_not_the_process(tmp_path: Path) -> None:
    """arro3 panics on such a file, and pyo3's PanicException is no Exception."""
    warehouse, featurize, _ = StagedBatch.sound().write(tmp_path)
    file = featurize.partitions[0].files[0]
    rewrite(tmp_path, file.path, lambda content: content[:-10])
    with pytest.raises(AuditError, match="cannot be decoded, stage it again"):
        list(read_rows(warehouse, FEATURES, file.path))
