"""The audit of a staged batch version: its manifest, its files, its rows, and what they add up to."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from orchard_jobs.audit.class_moments_checks import CLASS_MOMENTS_CHECK, LabelSums, ListedLabels, check_class_moments
from orchard_jobs.audit.file_checks import FILE_CHECKS, REPORT_CHECK, Rows, check_files, read_rows, report_differences
from orchard_jobs.audit.moments_checks import MOMENTS_CHECK, ColumnSums, check_moments
from orchard_jobs.audit.prediction_checks import PREDICTION_CHECKS, check_predicted
from orchard_jobs.audit.projection_checks import PCA_CHECKS, check_projected
from orchard_jobs.audit.row_checks import (
    CONTENT_CHECK,
    FEATURES_CHECKS,
    QUARANTINE_CHECKS,
    ROW_CHECKS,
    VECTOR_CHECKS,
    check_features,
    check_reasons,
    check_rows,
    check_vectors,
    vectors_of,
)
from orchard_jobs.audit.row_matching import MATCHING_CHECKS, RowMatcher
from orchard_jobs.audit.verdict import Findings, Verdict
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, PREDICTIONS
from orchard_jobs.contract.columns import FEATURES, MOMENTS, PCA_FEATURES, QUARANTINE, Table
from orchard_jobs.contract.jobs import BatchVersion, JobReport
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, Part, read_known, read_part
from orchard_jobs.storage import Warehouse

MANIFEST_CHECK = {"manifest": "the manifest's parts, keys and counts are those that its head names"}
COUNT_CHECKS = {
    "counts": "listed = featurized + reused + quarantined, and all counts are those of manifest, report and rows alike",
    "quarantined_share": "no larger share of the listed images is quarantined than the policy allows",
}


@dataclass(frozen=True)
class AuditPolicy:
    """When bad images are too many.

    Attributes:
        max_quarantined_share: the largest share of the listed images that may be quarantined.
        min_quarantined: the share is only judged where more images than this are quarantined.
    """

    max_quarantined_share: float = 0.2
    min_quarantined: int = 10


@dataclass(frozen=True)
class _Batch:
    warehouse: Warehouse
    head: ManifestHead
    featurize: JobReport
    reduce: JobReport | None
    findings: Findings
    matcher: RowMatcher
    sums: ColumnSums
    labels: LabelSums

    def rows_of(self, table: Table) -> Iterator[Rows]:
        for partition in self.featurize.of_table(table.name):
            for file in partition.files:
                yield from read_rows(self.warehouse, table, file.path)


def audit_batch(
    warehouse: Warehouse, head: ManifestHead, featurize: JobReport, reduce: JobReport | None, policy: AuditPolicy
) -> Verdict:
    """Return the verdict on a staged batch version.

    Rows are judged only if the reports, the manifest and the files are sound; a warning says so. Memory holds about 300 bytes for
    each image, and the rows of one chunk.

    Args:
        warehouse: where manifest and files lie.
        head: the manifest's head; its parts are read from the warehouse.
        featurize: the report of `featurize`; exactly its files are read.
        reduce: the report of `reduce`; None if and only if the manifest names no model of any kind.
        policy: when bad images are too many.

    Raises:
        AuditError: a file cannot be decoded.
    """
    dimension = head.backbone.dimension
    sums, labels = ColumnSums(dimension), LabelSums(dimension, head.unlabelled)
    batch = _Batch(warehouse, head, featurize, reduce, Findings(), RowMatcher(head.digest), sums, labels)
    batch.findings.register_checks(REPORT_CHECK | MANIFEST_CHECK)
    _check_reports(batch)
    _check_manifest(batch)
    if batch.findings.has_failed():
        batch.findings.warn("files and rows were not checked, because the report or manifest check failed")
        return batch.findings.verdict()
    batch.findings.register_checks(FILE_CHECKS)
    for report in (featurize, reduce) if reduce else (featurize,):
        check_files(warehouse, report, batch.findings)
    if batch.findings.has_failed():
        batch.findings.warn("rows were not checked, because a file check failed")
        return batch.findings.verdict()
    _check_all_rows(batch)
    _check_counts(batch, policy)
    return batch.findings.verdict()


def _check_reports(batch: _Batch) -> None:
    head, findings = batch.head, batch.findings
    partition = (head.backbone.id, head.batch_id)
    wanted = [(FEATURES.name, partition), (QUARANTINE.name, partition)]
    # The moments are caches: a batch may do without.
    caches = (MOMENTS, CLASS_MOMENTS)
    wanted += [(table.name, partition) for table in caches if batch.featurize.of_table(table.name)]
    differences = report_differences(batch.featurize, "featurize", head.digest, head.backbone.id, wanted)
    findings.extend("report", "report", differences)
    if (batch.reduce is None) != (not head.models):
        findings.add("report", "report", f"reduce: models {head.models}, report {'missing' if head.models else 'there'}")
    elif batch.reduce:
        models = ((PCA_FEATURES, head.model), (PREDICTIONS, head.classifier))
        wanted = [(table.name, (model.model_id, head.batch_id)) for table, model in models if model is not None]
        findings.extend("report", "report", report_differences(batch.reduce, "reduce", head.digest, head.backbone.id, wanted))


def _check_manifest(batch: _Batch) -> None:
    head, matcher, findings = batch.head, batch.matcher, batch.findings
    for part in (*head.parts, *([head.known] if head.known else [])):
        path = manifest_path(head.digest, part.name)
        try:
            findings.extend("manifest", path, _expect_part(batch, part))
        except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
            findings.add("manifest", path, f"cannot be read: {error}")
    if (matcher.listed, matcher.entries_missing) != (head.listed, head.missing):
        counted = f"{matcher.listed} listed and {matcher.entries_missing} missing entries"
        findings.add("manifest", "manifest", f"the parts hold {counted}, the head names {head.listed} and {head.missing}")


def _expect_part(batch: _Batch, part: Part) -> Iterator[str]:
    packed = batch.warehouse.read_if_there(manifest_path(batch.head.digest, part.name))
    if packed is None:
        yield "is not there"
        return
    if hashlib.sha256(gzip.decompress(packed)).hexdigest() != part.sha256:
        yield f"its text does not have SHA-256 {part.sha256}"
        return
    if part == batch.head.known:
        batch.matcher.expect_known(read_known(packed))
        return
    for entry in read_part(packed):
        if not batch.matcher.expect(entry):
            yield f"{entry.image_uri} occurs twice"


def _entries(batch: _Batch) -> Iterator[Entry]:
    for part in batch.head.parts:
        yield from read_part(batch.warehouse.read(manifest_path(batch.head.digest, part.name)))


def _check_all_rows(batch: _Batch) -> None:
    batch.findings.register_checks(
        ROW_CHECKS | CONTENT_CHECK | VECTOR_CHECKS | FEATURES_CHECKS | QUARANTINE_CHECKS | MATCHING_CHECKS
    )
    _check_features(batch)
    _check_quarantine(batch)
    batch.findings.extend("keys", "manifest", batch.matcher.lost(_entries(batch)))
    _check_moments(batch)
    _check_model_rows(batch)


def _check_features(batch: _Batch) -> None:
    has_classes = bool(batch.featurize.of_table(CLASS_MOMENTS.name))
    for rows in batch.rows_of(FEATURES):
        check_rows(rows, batch.head.digest, batch.findings)
        vectors = check_vectors(rows, "features", batch.head.backbone.dimension, batch.findings)
        check_features(rows, vectors, batch.findings)
        batch.matcher.see(rows, batch.findings)
        batch.matcher.see_vectors(rows, vectors, batch.findings)
        batch.sums.add(vectors.matrix)
        if has_classes:
            batch.labels.add(rows, vectors, lambda uri, *_: not batch.matcher.is_missing(uri))


def _check_quarantine(batch: _Batch) -> None:
    for rows in batch.rows_of(QUARANTINE):
        check_rows(rows, batch.head.digest, batch.findings)
        check_reasons(rows, batch.findings)
        batch.matcher.see(rows, batch.findings)


def _check_moments(batch: _Batch) -> None:
    for rows in _one_row_of(batch, MOMENTS, MOMENTS_CHECK):
        check_moments(rows, batch.sums, batch.findings)
    for rows in _one_row_of(batch, CLASS_MOMENTS, CLASS_MOMENTS_CHECK):
        _add_missing(batch)
        check_class_moments(rows, batch.labels, batch.findings)


def _one_row_of(batch: _Batch, table: Table, checks: dict[str, str]) -> Iterator[Rows]:
    """Yield the rows of a table of moments, where some are staged, after the checks that hold for all; one is right."""
    staged = sum(partition.rows for partition in batch.featurize.of_table(table.name))
    if staged == 0:
        return
    batch.findings.register_checks(checks)
    if staged > 1:
        batch.findings.add(table.name, "report", f"{staged} rows are staged")
    for rows in batch.rows_of(table):
        check_rows(rows, batch.head.digest, batch.findings)
        yield rows


def _add_missing(batch: _Batch) -> None:
    """Add the rows of missing images that count: which do is known once all rows were read."""
    if not batch.head.missing_good:
        return
    listed = ListedLabels(batch.matcher.is_missing)
    listed.find(lambda: batch.rows_of(FEATURES))
    for rows in batch.rows_of(FEATURES):
        batch.labels.add(rows, vectors_of(rows.column("features"), batch.head.backbone.dimension), listed.counts_missing)


def _check_model_rows(batch: _Batch) -> None:
    head = batch.head
    if batch.reduce is None:
        return
    files = tuple(file.path for partition in batch.featurize.of_table(FEATURES.name) for file in partition.files)
    version = BatchVersion(head.batch_id, head.digest, head.number, files)
    if head.model is not None:
        batch.findings.register_checks(PCA_CHECKS)
        check_projected(batch.warehouse, head.model, version, batch.reduce, batch.findings)
    if head.classifier is not None:
        batch.findings.register_checks(PREDICTION_CHECKS)
        check_predicted(batch.warehouse, head.classifier, version, batch.reduce, batch.findings)


def _check_counts(batch: _Batch, policy: AuditPolicy) -> None:
    matcher, findings, counts = batch.matcher, batch.findings, batch.featurize.counts
    findings.register_checks(COUNT_CHECKS)
    found = {
        "listed": matcher.listed,
        "featurized": matcher.featurized,
        "reused": matcher.good - matcher.featurized,
        "quarantined": matcher.quarantined,
        "missing": matcher.missing,
    }
    wrong = (f"{name}: report {counts.get(name)}, rows {value}" for name, value in found.items() if counts.get(name) != value)
    findings.extend("counts", "report", wrong)
    if matcher.listed != matcher.good + matcher.quarantined:
        findings.add("counts", "report", f"{matcher.listed} listed, {matcher.good} good, {matcher.quarantined} quarantined")
    runs, least = counts.get("network_runs", -1), matcher.featurized * len(batch.head.backbone.views)
    if runs < least:
        findings.add("counts", "report", f"network_runs: {runs}, featurized {matcher.featurized}, which takes at least {least}")
    allowed = max(policy.min_quarantined, policy.max_quarantined_share * matcher.listed)
    # A batch without any good image has no row that somebody could take for the whole batch: its quarantine tells why.
    if matcher.good and matcher.quarantined > allowed:
        findings.add("quarantined_share", "report", f"{matcher.quarantined} of {matcher.listed} images are quarantined")
    if matcher.good == 0:
        quarantined = f"{matcher.quarantined} of {matcher.listed} are quarantined"
        findings.warn(f"batch {batch.head.batch_id} has no good image: {quarantined}")
