"""The audit of a staged batch as a whole: shares, known contents, the projection, and what a failure says."""

from dataclasses import replace
from pathlib import Path

import pytest
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.manifest import write_known
from orchard_jobs.escaping import escaped
from support.staged_batch import (
    ALL_CHECKS,
    StagedBatch,
    class_moments_of,
    content_of,
    failed,
    judge,
    name_known,
    take_another_jobs_vector,
    uri_of,
)

POLICY = AuditPolicy()


@pytest.mark.parametrize(
    ("policy", "fails"),
    [
        (AuditPolicy(0.19, 1), True),
        (AuditPolicy(0.2, 1), False),
        (AuditPolicy(0.19, 2), False),
        (AuditPolicy(), False),
    ],
)
def test_too_large_a_share_of_quarantined_images_fails(policy: AuditPolicy, fails: bool, tmp_path: Path) -> None:
    assert failed(judge(StagedBatch.sound(), tmp_path, policy)) == ({"quarantined_share"} if fails else set())


@pytest.mark.parametrize("policy", [AuditPolicy(), AuditPolicy(0.0, 0)])
def test_a_batch_without_a_good_image_passes_with_a_warning(policy: AuditPolicy, tmp_path: Path) -> None:
    batch = StagedBatch.sound(range(8, 10))
    batch.counts = {"listed": 2, "featurized": 0, "reused": 0, "quarantined": 2, "missing": 0, "network_runs": 0}
    batch.captured = lambda captured: (replace(captured, total=0.0, kept=0.0),)
    verdict = judge(batch, tmp_path, policy)
    assert verdict.has_passed
    assert verdict.warnings == ("batch 2026-01-05 has no good image: 2 of 2 are quarantined",)


def test_equal_content_of_two_jobs_may_differ(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.features[6].update(content_sha256=batch.features[0]["content_sha256"])
    batch.pca[6].update(content_sha256=batch.features[0]["content_sha256"])
    assert judge(batch, tmp_path).has_passed


def test_a_known_content_has_another_jobs_vector_and_counts_as_reused(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    name_known(0)(batch)
    take_another_jobs_vector(batch)
    assert judge(batch, tmp_path).has_passed


def test_known_contents_that_are_not_the_heads_fail(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    name_known(0)(batch)
    take_another_jobs_vector(batch)
    batch.parts[-1] = (batch.parts[-1][0], write_known([content_of(1)])[1])
    (failure,) = judge(batch, tmp_path).failures
    assert failure.check == "manifest"
    assert "does not have SHA-256" in failure.examples[0]


def test_a_batch_that_has_no_model_yet_is_not_asked_for_its_projection(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    head = replace(batch.head, model=None)
    for row in [*batch.features, *batch.quarantine]:
        row["manifest_digest"] = head.digest
        row["computed_in"] = head.digest if row.get("computed_in") == batch.head.digest else row.get("computed_in")
    batch.head = head
    warehouse, featurize, reduce = batch.write(tmp_path)
    verdict = audit_batch(warehouse, head, featurize, None, POLICY)
    assert verdict.has_passed
    assert set(verdict.passed) == ALL_CHECKS - {"pca_rows", "captured", "moments", "class_moments"}
    assert failed(audit_batch(warehouse, head, featurize, reduce, POLICY)) == {"report"}


def test_a_planned_model_without_a_projection_fails(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, _ = batch.write(tmp_path)
    assert failed(audit_batch(warehouse, batch.head, featurize, None, POLICY)) == {"report"}


def test_a_failure_says_what_where_how_many_and_shows_five(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    for row in batch.features:
        row["width"] = 0
    (failure,) = judge(batch, tmp_path).failures
    assert failure.what == "width and height are at least 1"
    assert [Path(path).name for path in failure.where] == ["0.parquet", "1.parquet"]
    assert failure.count == 9
    assert len(failure.examples) == 5
    assert failure.examples[0] == f"{escaped(uri_of(0))}: width x height is 0 x 80"


def test_a_missing_image_counts_under_its_label(tmp_path: Path) -> None:
    """The last row is of a missing image: it is among those that make the class moments."""
    batch = StagedBatch.sound().with_moments()
    assert judge(batch, tmp_path / "all").has_passed
    batch.class_moments = [class_moments_of(batch.features[:-1], batch.head.digest)]
    assert failed(judge(batch, tmp_path / "without")) == {"class_moments"}


def test_a_missing_image_that_was_moved_to_another_label_does_not_count(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    for rows in (batch.features, batch.pca):
        rows[-1]["content_sha256"] = content_of(2)  # listed under Pear
    batch.with_moments()
    assert failed(judge(batch, tmp_path / "all")) == {"class_moments"}
    batch.class_moments = [class_moments_of(batch.features[:-1], batch.head.digest)]
    assert judge(batch, tmp_path / "without").has_passed


def test_class_moments_of_a_batch_without_a_label_are_empty(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    unlabelled = ("Apple Red 1", "Pear")
    head = replace(batch.head, unlabelled=unlabelled)
    for row in [*batch.features, *batch.quarantine, *batch.pca]:
        row["manifest_digest"] = head.digest
        row["computed_in"] = head.digest if row.get("computed_in") == batch.head.digest else row.get("computed_in")
    batch.head = head
    empty: dict[str, list[object]] = {"labels": [], "counts": [], "means": [], "scatter": []}
    batch.class_moments = [{"manifest_digest": head.digest, "unlabelled": list(unlabelled)} | empty]
    assert judge(batch, tmp_path).has_passed
    batch.class_moments = [class_moments_of(batch.features, head.digest) | {"unlabelled": list(unlabelled)}]
    assert failed(judge(batch, tmp_path / "counted")) == {"class_moments"}
