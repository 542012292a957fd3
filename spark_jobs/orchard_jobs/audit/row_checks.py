"""Checks on the rows of one chunk: each takes rows and yields one example a fault. They know no other rows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchard_jobs.audit.file_checks import Rows
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.contract.quarantine import Reason

ROW_CHECKS = {
    "not_null": "nulls occur only in nullable columns, never inside lists",
    "manifest_digest": "every row carries the digest of its manifest",
    "provenance": "jobs_version and computed_in say what made a row",
}
CONTENT_CHECK = {"content_sha256": "content_sha256 is 64 lower-case hexadecimal digits"}
VECTOR_CHECKS = {
    "vector_length": "a vector has as many values as the backbone or the model has dimensions",
    "finite": "no value of a vector is NaN or infinite",
}
FEATURES_CHECKS = {
    "not_zero": "no feature vector is all zeros",
    "image_size": "width and height are at least 1",
}
QUARANTINE_CHECKS = {"reason": "reason is one of contract.quarantine.Reason"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REASONS = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True)
class Vectors:
    """The vectors of some rows that have the right length and no null: which rows, and float [rows, length]."""

    rows: NDArray[np.int64]
    matrix: NDArray[Any]


def vectors_of(column: pa.Array, length: int) -> Vectors:
    """Return the whole vectors of a list column; those that are null, hold null or have another length are left out."""
    is_whole = np.array(pc.fill_null(pc.equal(pc.list_value_length(column), length), False), dtype=bool)
    is_whole[_rows_with_null_elements(column)] = False
    flat = column.filter(pa.array(is_whole)).flatten().to_numpy(zero_copy_only=False)
    return Vectors(np.flatnonzero(is_whole), flat.reshape(-1, length))


def check_rows(rows: Rows, manifest_digest: str, findings: Findings) -> None:
    """Judge what holds for every table: `not_null`, `manifest_digest`, `provenance`, `content_sha256`."""
    findings.extend("not_null", rows.path, _nulls(rows))
    findings.extend("manifest_digest", rows.path, _other_manifests(rows, manifest_digest))
    findings.extend("provenance", rows.path, _without_provenance(rows))
    if "content_sha256" in rows.table.column_names:
        findings.extend("content_sha256", rows.path, _malformed_contents(rows))


def check_vectors(rows: Rows, column: str, length: int, findings: Findings) -> Vectors:
    """Judge `vector_length` and `finite`; return the whole vectors."""
    findings.extend("vector_length", rows.path, _wrong_lengths(rows, column, length))
    vectors = vectors_of(rows.column(column), length)
    is_bad = ~np.isfinite(vectors.matrix).all(axis=1)
    bad = vectors.rows[is_bad]
    findings.extend("finite", rows.path, (f"{rows.names[i]}: a value of {column} is NaN or infinite" for i in bad))
    return vectors


def check_features(rows: Rows, vectors: Vectors, findings: Findings) -> None:
    """Judge `not_zero` and `image_size`."""
    zero = vectors.rows[~vectors.matrix.any(axis=1)]
    findings.extend("not_zero", rows.path, (f"{rows.names[i]}: all features are 0" for i in zero))
    findings.extend("image_size", rows.path, _without_pixels(rows))


def check_reasons(rows: Rows, findings: Findings) -> None:
    """Judge `reason`."""
    reasons = zip(rows.names, rows.values("reason"), strict=True)
    wrong = (f"{name}: reason is {reason!r}" for name, reason in reasons if reason is not None and reason not in _REASONS)
    findings.extend("reason", rows.path, wrong)


def _rows_with_null_elements(column: pa.Array) -> NDArray[np.int64]:
    elements = column.flatten()
    if elements.null_count == 0:
        return np.empty(0, np.int64)
    return np.unique(np.asarray(pc.list_parent_indices(column).filter(elements.is_null())))


def _nulls(rows: Rows) -> Iterator[str]:
    for column in rows.table.columns:
        values = rows.column(column.name)
        if values.null_count and not column.is_nullable:
            yield from (f"{rows.names[i]}: {column.name} is null" for i in _where(values.is_null()))
        if pa.types.is_list(values.type):
            lists = _rows_with_null_elements(values)
            yield from (f"{rows.names[i]}: an element of {column.name} is null" for i in lists)


def _other_manifests(rows: Rows, manifest_digest: str) -> Iterator[str]:
    found = rows.column("manifest_digest")
    for i in _where(pc.not_equal(found, manifest_digest)):
        yield f"{rows.names[i]}: manifest_digest is {found[i]}, not {manifest_digest}"


def _without_provenance(rows: Rows) -> Iterator[str]:
    for name in ("computed_in", "jobs_version"):
        if name in rows.table.column_names:
            yield from (f"{rows.names[i]}: {name} is empty" for i in _where(pc.equal(rows.column(name), "")))


def _malformed_contents(rows: Rows) -> Iterator[str]:
    for name, content in zip(rows.names, rows.values("content_sha256"), strict=True):
        if content is not None and not _SHA256.fullmatch(content):
            yield f"{name}: content_sha256 is {content!r}"


def _wrong_lengths(rows: Rows, column: str, length: int) -> Iterator[str]:
    lengths = pc.list_value_length(rows.column(column))
    for i in _where(pc.not_equal(lengths, length)):
        yield f"{rows.names[i]}: {column} has {lengths[i]} values, not {length}"


def _without_pixels(rows: Rows) -> Iterator[str]:
    width, height = rows.column("width"), rows.column("height")
    for i in _where(pc.or_kleene(pc.less(width, 1), pc.less(height, 1))):
        yield f"{rows.names[i]}: width x height is {width[i]} x {height[i]}"


def _where(mask: pa.Array) -> NDArray[np.int64]:
    """Return the rows where a mask is true; null is not true: a null is `not_null`'s to find."""
    return np.flatnonzero(np.asarray(pc.fill_null(mask, False)))
