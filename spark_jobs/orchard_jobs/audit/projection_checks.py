"""The audit of pca_features: they are exactly the features' rows, each as long as the model has components."""

import math
from collections.abc import Iterator

from orchard_jobs.audit.file_checks import FILE_CHECKS, REPORT_CHECK, check_files, report_differences
from orchard_jobs.audit.matched_rows import ModelRows, matched_rows
from orchard_jobs.audit.prediction_checks import PREDICTION_CHECKS, check_predicted
from orchard_jobs.audit.row_checks import CONTENT_CHECK, ROW_CHECKS, VECTOR_CHECKS, check_vectors
from orchard_jobs.audit.verdict import Findings, Verdict
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.columns import PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, JobReport, ProjectionPlan
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.storage import Warehouse

PCA_CHECKS = {
    "pca_rows": "pca_features has exactly the rows of features: image_uri, content_sha256 and label",
    "captured": "the report gives one captured value per model and batch, covering all its rows, and 0 <= kept <= total",
}
_ROUNDING = 1e-9


def audit_projection(warehouse: Warehouse, plan: ProjectionPlan, report: JobReport) -> Verdict:
    """Return the verdict on the rows that a `project` or `classify` job staged.

    Args:
        warehouse: where the files lie.
        plan: the models, each with its published batch versions.
        report: the job's report; exactly its files are read.

    Raises:
        AuditError: a file cannot be decoded.
    """
    table, checks, check = _OF_STAGE[plan.stage]
    findings = Findings()
    findings.register_checks(REPORT_CHECK)
    wanted = [(table.name, (model.model_id, batch.batch_id)) for model, batch in plan.pairs]
    findings.extend("report", "report", report_differences(report, plan.stage, plan.digest, plan.backbone, wanted))
    if not findings.has_failed():
        findings.register_checks(FILE_CHECKS)
        check_files(warehouse, report, findings)
        _check_published(warehouse, plan, findings)
    if findings.has_failed():
        findings.warn("rows were not checked, because the report or a file check failed")
        return findings.verdict()
    findings.register_checks(ROW_CHECKS | CONTENT_CHECK | checks)
    for model, batch in plan.pairs:
        check(warehouse, model, batch, report, findings)
    return findings.verdict()


def _check_published(warehouse: Warehouse, plan: ProjectionPlan, findings: Findings) -> None:
    for path in sorted({path for _, batch in plan.pairs for path in batch.files}):
        if warehouse.size(path) is None:
            findings.add("files", path, "published features are missing: start a new run")


def check_projected(
    warehouse: Warehouse, model: ModelReference, batch: BatchVersion, report: JobReport, findings: Findings
) -> None:
    """Judge one batch's pca_features of one model: its rows, `pca_rows` and `captured`. Holds 16 bytes for each row."""
    rows = 0
    for chunk in matched_rows(ModelRows(warehouse, PCA_FEATURES, model, batch), report, "pca_rows", findings):
        check_vectors(chunk, "pca_features", model.k, findings)
        rows += chunk.batch.num_rows
    findings.extend("captured", "report", _captured_faults(model, batch, report.captured, rows))


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


_OF_STAGE = {
    "project": (PCA_FEATURES, VECTOR_CHECKS | PCA_CHECKS, check_projected),
    "classify": (PREDICTIONS, PREDICTION_CHECKS, check_predicted),
}
