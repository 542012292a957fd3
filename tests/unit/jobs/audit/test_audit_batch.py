"""Every check of a batch finds its own fault, and no other check finds it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from orchard_jobs.audit.batch import AuditPolicy, audit_batch
from orchard_jobs.audit.schemas import arrow_schema
from orchard_jobs.audit.verdict import Verdict
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.jobs import Captured
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import write_known, write_parts
from orchard_jobs.errors import AuditError
from support.staged_batch import MODEL, StagedBatch, content_of, entry_of, nullable, quarantine_row, sha256, uri_of

Damage = Callable[[StagedBatch], object]
POLICY = AuditPolicy()
FILE_LEVEL = {"report", "manifest", "files", "schema", "rows"}
ROW_LEVEL = {
    "not_null",
    "manifest_digest",
    "provenance",
    "content_sha256",
    "vector_length",
    "finite",
    "not_zero",
    "image_size",
    "reason",
    "unique_uri",
    "keys",
    "listing",
    "actions",
    "computed_in",
    "equal_content",
    "moments",
    "pca_rows",
    "captured",
    "counts",
    "quarantined_share",
}
ALL_CHECKS = FILE_LEVEL | ROW_LEVEL


def judge(batch: StagedBatch, folder: Path, policy: AuditPolicy = POLICY) -> Verdict:
    warehouse, featurize, reduce = batch.write(folder)
    return audit_batch(warehouse, batch.head, featurize, reduce, policy)


def failed(verdict: Verdict) -> set[str]:
    return {failure.check for failure in verdict.failures}


def test_a_sound_batch_passes_every_check(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.with_moments()
    verdict = judge(batch, tmp_path)
    assert verdict.has_passed
    assert set(verdict.passed) == ALL_CHECKS
    assert verdict.warnings == ()
    verdict.raise_if_failed()


def set_in(rows: str, i: int, **values: object) -> Damage:
    return lambda batch: getattr(batch, rows)[i].update(values)


def in_both(i: int, **values: object) -> Damage:
    def damage(batch: StagedBatch) -> None:
        batch.features[i].update(values)
        batch.pca[i].update(values)

    return damage


def add_to(rows: str, make: Callable[[StagedBatch], dict[str, object]]) -> Damage:
    return lambda batch: getattr(batch, rows).append(make(batch))


def lose_a_missing_image(batch: StagedBatch) -> None:
    batch.quarantine.pop()
    batch.counts["missing"] = 1


def move_a_kept_row_to_quarantine(batch: StagedBatch) -> None:
    batch.features.pop(6)
    batch.pca.pop(6)
    batch.quarantine.append(quarantine_row(6, batch.head.digest))
    batch.counts.update(reused=2, quarantined=3)


def name_known(*indices: int) -> Damage:
    """Name contents as known after the rows were made, and stamp the rows with the new manifest."""

    def damage(batch: StagedBatch) -> None:
        part, packed = write_known(content_of(i) for i in indices)
        before, batch.head = batch.head.digest, replace(batch.head, known=part)
        batch.parts.append((part.name, packed))
        for row in [*batch.features, *batch.quarantine, *batch.pca]:
            row["manifest_digest"] = batch.head.digest
            if row.get("computed_in") == before:
                row["computed_in"] = batch.head.digest

    return damage


def compute_what_is_kept(batch: StagedBatch) -> None:
    batch.features[6]["computed_in"] = batch.head.digest
    batch.counts.update(featurized=6, reused=2, network_runs=6)


def take_another_jobs_vector(batch: StagedBatch) -> None:
    batch.features[0]["computed_in"] = sha256("an earlier manifest")
    batch.counts.update(featurized=4, reused=4)


def moments_with(**values: object) -> Damage:
    def damage(batch: StagedBatch) -> None:
        batch.with_moments()
        batch.moments[0].update(values)

    return damage


def moments_nearly(name: str, i: int, factor: float) -> Damage:
    def damage(batch: StagedBatch) -> None:
        batch.with_moments()
        batch.moments[0][name][i] *= factor

    return damage


def two_moments(batch: StagedBatch) -> None:
    batch.with_moments()
    batch.moments *= 2


def captured_as(**values: Any) -> Damage:
    def damage(batch: StagedBatch) -> None:
        batch.captured = lambda captured: (replace(captured, **values),)

    return damage


def capture(*captured: Captured) -> Damage:
    def damage(batch: StagedBatch) -> None:
        batch.captured = lambda _: captured

    return damage


VECTOR = np.arange(8, dtype=np.float32)
ROW_FAULTS: list[tuple[str, Damage]] = [
    ("not_null", set_in("features", 0, etag=None)),
    ("not_null", set_in("features", 0, features=[None, *range(1, 8)])),
    ("not_null", set_in("features", 0, features=None)),
    ("not_null", set_in("quarantine", 0, message=None)),
    ("not_null", set_in("pca", 0, jobs_version=None)),
    ("not_null", set_in("pca", 0, pca_features=[1.0, None, 2.0])),
    ("manifest_digest", set_in("features", 7, manifest_digest=sha256("other"))),
    ("manifest_digest", set_in("quarantine", 0, manifest_digest=sha256("other"))),
    ("manifest_digest", set_in("pca", 2, manifest_digest=sha256("other"))),
    ("manifest_digest", lambda batch: batch.with_moments().moments[0].update(manifest_digest="x")),
    ("provenance", set_in("features", 6, computed_in="")),
    ("provenance", set_in("quarantine", 2, jobs_version="")),
    ("content_sha256", in_both(0, content_sha256=sha256("0").upper())),
    ("content_sha256", set_in("quarantine", 0, content_sha256="0" * 63)),
    ("content_sha256", in_both(0, content_sha256=sha256("0") + "\n")),
    ("vector_length", set_in("features", 3, features=VECTOR[:7].tolist())),
    ("vector_length", set_in("features", 3, features=[])),
    ("vector_length", set_in("pca", 3, pca_features=[1.0, 2.0, 3.0, 4.0])),
    ("finite", set_in("features", 2, features=[*VECTOR[:7].tolist(), float("nan")])),
    ("finite", set_in("pca", 8, pca_features=[float("inf"), 0.0, 0.0])),
    ("not_zero", set_in("features", 1, features=[0.0] * 8)),
    ("image_size", set_in("features", 1, width=0)),
    ("image_size", set_in("features", 1, height=-1)),
    ("reason", set_in("quarantine", 1, reason="bad luck")),
    ("unique_uri", add_to("features", lambda batch: dict(batch.features[0]))),
    ("unique_uri", add_to("quarantine", lambda batch: quarantine_row(0, batch.head.digest))),
    ("keys", add_to("quarantine", lambda batch: quarantine_row(0, batch.head.digest) | {"image_uri": "s3://landing/x"})),
    ("keys", lose_a_missing_image),
    ("listing", set_in("features", 0, etag="etag1")),
    ("listing", set_in("quarantine", 0, size_bytes=1)),
    ("listing", in_both(0, label=None)),
    ("listing", in_both(1, label="")),
    ("listing", in_both(7, content_sha256=sha256("not what was to be reused"))),
    ("actions", move_a_kept_row_to_quarantine),
    ("computed_in", name_known(0)),
    ("computed_in", compute_what_is_kept),
    ("computed_in", take_another_jobs_vector),
    ("equal_content", set_in("features", 5, features=VECTOR.tolist())),
    ("moments", moments_with(n=8)),
    ("moments", moments_nearly("mean", 3, 1 + 1e-6)),
    ("moments", moments_nearly("second_moment", 15, 1 + 1e-6)),
    ("moments", moments_nearly("second_moment", 1, float("nan"))),
    ("moments", moments_with(second_moment=[1.0] * 35)),
    ("moments", two_moments),
    ("pca_rows", lambda batch: batch.pca.pop()),
    ("pca_rows", set_in("pca", 0, content_sha256=sha256("other"))),
    ("pca_rows", set_in("pca", 0, label="Pear")),
    ("pca_rows", add_to("pca", lambda batch: dict(batch.pca[0]))),
    ("pca_rows", add_to("pca", lambda batch: batch.pca[0] | {"image_uri": "s3://landing/x"})),
    ("captured", captured_as(n=8)),
    ("captured", captured_as(kept=10.1)),
    ("captured", captured_as(kept=-0.1)),
    ("captured", captured_as(total=float("nan"))),
    ("captured", captured_as(manifest_digest="other")),
    ("captured", capture()),
    *[("counts", lambda batch, name=name: batch.counts.update({name: 4})) for name in ("listed", "featurized", "reused")],
    *[("counts", lambda batch, name=name: batch.counts.update({name: 4})) for name in ("quarantined", "missing")],
    ("counts", lambda batch: batch.counts.update(network_runs=4)),
    ("counts", lambda batch: batch.counts.clear()),
]


@pytest.mark.parametrize(("check", "damage"), ROW_FAULTS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(ROW_FAULTS)])
def test_a_fault_in_the_rows_is_found_by_its_own_check_only(check: str, damage: Damage, tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    damage(batch)
    verdict = judge(batch, tmp_path)
    assert failed(verdict) == {check}
    with pytest.raises(AuditError, match=f"\n{check}: "):
        verdict.raise_if_failed()


def test_every_check_on_rows_has_a_fault_here() -> None:
    assert {check for check, _ in ROW_FAULTS} == ALL_CHECKS - FILE_LEVEL - {"quarantined_share"}


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
    assert set(verdict.passed) == ALL_CHECKS - {"pca_rows", "captured", "moments"}
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
    assert failure.examples[0] == f"{uri_of(0)}: width x height is 0 x 80"


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
    assert verdict.warnings == ("rows were not judged, since the files are not as reported",)


def rewrite(folder: Path, path: str, change: Callable[[bytes], bytes]) -> None:
    (folder / path).write_bytes(change((folder / path).read_bytes()))


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
    assert (failure.check, failure.examples) == ("manifest", (f"{uri_of(0)} stands twice",))


def test_a_lost_image_shows_in_the_counts_although_the_report_agrees(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.quarantine.pop(0)
    batch.counts["quarantined"] = 1
    keys, counts = judge(batch, tmp_path).failures
    assert keys.examples == (f"{uri_of(8)} has no row (action compute)",)
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


def test_a_null_image_uri_is_named_by_its_row(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.quarantine[0]["image_uri"] = None
    verdict = judge(batch, tmp_path)
    assert "row 0: image_uri is null" in {example for failure in verdict.failures for example in failure.examples}
    assert failed(verdict) == {"not_null", "keys", "counts"}
    assert QUARANTINE.name in verdict.failures[0].where[0]
