"""The audit of a staged batch's reports and manifest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import write_parts
from orchard_jobs.escaping import escaped
from support.staged_batch import MODEL, StagedBatch, entry_of, failed, judge, uri_of

POLICY = AuditPolicy()


@pytest.mark.parametrize("change", ["input_digest", "stage", "backbone", "partition", "lost", "twice", "folder", "work"])
def test_a_report_of_other_work_fails(change: str, tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    features, quarantine = featurize.partitions
    moved = replace(features.files[0], path=f"features/{features.files[0].path}")
    changed = {
        "input_digest": replace(featurize, input_digest="other"),
        "stage": replace(featurize, stage="project"),
        "backbone": replace(featurize, backbone="other"),
        "partition": replace(featurize, partitions=(replace(features, partition=("other", "2026-01-05")), quarantine)),
        "lost": replace(featurize, partitions=(features,)),
        "twice": replace(featurize, partitions=(replace(features, files=features.files * 2), quarantine)),
        "folder": replace(featurize, partitions=(replace(features, files=(moved,)), quarantine)),
        "work": replace(featurize, work="w2"),
    }[change]
    assert failed(audit_batch(warehouse, batch.head, changed, reduce, POLICY)) == {"report"}


def test_a_projection_by_another_model_fails(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    (pca,) = reduce.partitions
    reduce = replace(reduce, partitions=(replace(pca, partition=(MODEL.model_id + "x", "2026-01-05")),))
    assert failed(audit_batch(warehouse, batch.head, featurize, reduce, POLICY)) == {"report"}


@pytest.mark.parametrize(("change", "text"), [(b"no gzip", "cannot be read"), (None, "is not there"), (b"", "SHA-256")])
def test_a_manifest_part_that_is_not_the_heads_fails(change: bytes | None, text: str, tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    warehouse, featurize, reduce = batch.write(tmp_path)
    path = tmp_path / manifest_path(batch.head.digest, batch.head.parts[0].name)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change)
    verdict = audit_batch(warehouse, batch.head, featurize, reduce, POLICY)
    assert failed(verdict) == {"manifest"}
    assert text in verdict.failures[0].examples[0]


def test_a_manifest_that_names_a_key_twice_fails(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    ((part, packed),) = write_parts(entry_of(i) for i in (0, 0, *range(1, 12)))
    batch.parts = [(part.name, packed)]
    batch.head = replace(batch.head, listed=11, parts=(part,))
    (failure,) = judge(batch, tmp_path).failures
    assert (failure.check, failure.examples) == ("manifest", (f"{escaped(uri_of(0))} occurs twice",))


def test_a_lost_image_shows_in_the_counts_although_the_report_agrees(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.quarantine.pop(0)
    batch.counts["quarantined"] = 1
    keys, counts = judge(batch, tmp_path).failures
    assert keys.examples == (f"{escaped(uri_of(8))} has no row (action compute)",)
    assert counts.examples == ("10 listed, 8 good, 1 quarantined",)


def test_a_manifest_part_of_another_manifest_fails(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.parts = StagedBatch.sound(range(11)).parts
    (fault, counts) = judge(batch, tmp_path).failures[0].examples
    assert "does not have SHA-256" in fault
    assert "0 listed" in counts


@pytest.mark.parametrize("values", [{"listed": 11}, {"missing": 1}])
def test_a_head_that_miscounts_its_entries_fails(values: dict[str, Any], tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.head = replace(batch.head, **values)
    assert failed(judge(batch, tmp_path)) == {"manifest"}
