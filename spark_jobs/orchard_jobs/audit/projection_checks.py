"""The audit of pca_features: they are exactly the features' rows, each as long as the model has components."""

import math
from collections.abc import Iterator

from orchard_jobs.audit.file_checks import (
    FILE_CHECKS,
    REPORT_CHECK,
    Rows,
    check_files,
    read_columns,
    read_rows,
    report_differences,
)
from orchard_jobs.audit.row_checks import CONTENT_CHECK, ROW_CHECKS, VECTOR_CHECKS, check_rows, check_vectors
from orchard_jobs.audit.row_matching import digest_16
from orchard_jobs.audit.verdict import Findings, Verdict
from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, JobReport, ProjectionPlan
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.storage import Warehouse

PCA_CHECKS = {
    "pca_rows": "pca_features has exactly the rows of features: image_uri, content_sha256 and label",
    "captured": "the report gives one captured value per model and batch, covering all its rows, and 0 <= kept <= total",
}
_IDENTITY = ("image_uri", "content_sha256", "label")
_ROUNDING = 1e-9


def audit_projection(warehouse: Warehouse, plan: ProjectionPlan, report: JobReport) -> Verdict:
    """Return the verdict on what a `project` job staged.

    Args:
        warehouse: where the files lie.
        plan: the models (k is the length of a row), each with its published batch versions.
        report: the job's report; exactly its files are read.

    Raises:
        AuditError: a file cannot be decoded.
    """
    findings = Findings()
    findings.register_checks(REPORT_CHECK)
    wanted = [(PCA_FEATURES.name, (model.model_id, batch.batch_id)) for model, batch in plan.pairs]
    findings.extend("report", "report", report_differences(report, "project", plan.digest, plan.backbone, wanted))
    if not findings.has_failed():
        findings.register_checks(FILE_CHECKS)
        check_files(warehouse, report, findings)
        _check_published(warehouse, plan, findings)
    if findings.has_failed():
        findings.warn("rows were not checked, because the report or a file check failed")
        return findings.verdict()
    findings.register_checks(ROW_CHECKS | CONTENT_CHECK | VECTOR_CHECKS | PCA_CHECKS)
    for model, batch in plan.pairs:
        check_projected(warehouse, model, batch, report, findings)
    return findings.verdict()


def _check_published(warehouse: Warehouse, plan: ProjectionPlan, findings: Findings) -> None:
    for path in sorted({path for _, batch in plan.pairs for path in batch.files}):
        if warehouse.size(path) is None:
            findings.add("files", path, "published features are missing: start a new run")


def check_projected(
    warehouse: Warehouse, model: ModelReference, batch: BatchVersion, report: JobReport, findings: Findings
) -> None:
    """Judge one batch's pca_features of one model: its rows, `pca_rows` and `captured`. Holds 16 bytes a row of the batch."""
    wanted = {key for path in batch.files for _, key in _keys(read_columns(warehouse, FEATURES, path, _IDENTITY))}
    seen: set[bytes] = set()
    rows = 0
    for partition in report.of_table(PCA_FEATURES.name):
        for file in partition.files if partition.partition == (model.model_id, batch.batch_id) else ():
            rows += file.rows
            for chunk in read_rows(warehouse, PCA_FEATURES, file.path):
                check_rows(chunk, batch.manifest_digest, findings)
                check_vectors(chunk, "pca_features", model.k, findings)
                findings.extend("pca_rows", file.path, _unexpected(chunk, wanted, seen))
    findings.extend("pca_rows", f"batch {batch.batch_id}", _without_projection(warehouse, batch, wanted - seen))
    findings.extend("captured", "report", _captured_faults(model, batch, report.captured, rows))


def _keys(chunks: Iterator[Rows]) -> Iterator[tuple[str, bytes]]:
    for chunk in chunks:
        columns = [chunk.values(name) for name in _IDENTITY]
        yield from ((chunk.names[i], digest_16(*row)) for i, row in enumerate(zip(*columns, strict=True)))


def _unexpected(chunk: Rows, wanted: set[bytes], seen: set[bytes]) -> Iterator[str]:
    for name, key in _keys(iter([chunk])):
        if key not in wanted:
            yield f"{name} with this content and label is not in features"
        elif key in seen:
            yield f"{name} occurs again here"
        seen.add(key)


def _without_projection(warehouse: Warehouse, batch: BatchVersion, lost: set[bytes]) -> Iterator[str]:
    for path in batch.files if lost else ():
        rows = _keys(read_columns(warehouse, FEATURES, path, _IDENTITY))
        yield from (f"{name} of features has no row" for name, key in rows if key in lost)


def _captured_faults(model: ModelReference, batch: BatchVersion, captured: tuple[Captured, ...], rows: int) -> Iterator[str]:
    wanted = (model.model_id, batch.batch_id, batch.manifest_digest)
    found = [one for one in captured if (one.model_id, one.batch_id, one.manifest_digest) == wanted]
    if len(found) != 1:
        names = f"model {model.model_id}, batch {batch.batch_id}, manifest {batch.manifest_digest}"
        yield f"{names}: reported {len(found)} times"
    for one in found:
        is_possible = math.isfinite(one.total) and 0 <= one.kept <= one.total * (1 + _ROUNDING)
        if one.n != rows or not is_possible:
            yield f"batch {batch.batch_id}: {one.n} rows of {rows}, kept {one.kept} of {one.total}"
