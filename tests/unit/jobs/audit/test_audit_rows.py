"""The audit of a staged batch's rows: each fault is found by its own check alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import QUARANTINE
from orchard_jobs.contract.jobs import Captured
from orchard_jobs.contract.views import parse_views
from orchard_jobs.errors import AuditError
from support.staged_batch import (
    ALL_CHECKS,
    FILE_LEVEL,
    Damage,
    StagedBatch,
    failed,
    judge,
    name_known,
    quarantine_row,
    sha256,
    take_another_jobs_vector,
)


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


def compute_what_is_kept(batch: StagedBatch) -> None:
    batch.features[6]["computed_in"] = batch.head.digest
    batch.counts.update(featurized=6, reused=2, network_runs=6)


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


def classes_with(**values: object) -> Damage:
    return lambda batch: batch.with_moments().class_moments[0].update(values)


def classes_nearly(name: str, i: int, factor: float) -> Damage:
    def damage(batch: StagedBatch) -> None:
        batch.with_moments().class_moments[0][name][i] *= factor

    return damage


def two_class_moments(batch: StagedBatch) -> None:
    batch.with_moments().class_moments *= 2


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
    ("class_moments", classes_with(labels=["Apple Red 1", "Plum"])),
    ("class_moments", classes_with(labels=["Apple Red 1"])),
    ("class_moments", classes_with(counts=[5, 3])),
    ("class_moments", classes_with(unlabelled=["unsorted"])),
    ("class_moments", classes_nearly("means", 9, 1 + 1e-6)),
    ("class_moments", classes_nearly("scatter", 15, 1 + 1e-6)),
    ("class_moments", classes_nearly("scatter", 1, float("nan"))),
    ("class_moments", classes_with(scatter=[1.0] * 35)),
    ("class_moments", classes_with(means=[1.0] * 15)),
    ("class_moments", two_class_moments),
    ("manifest_digest", classes_with(manifest_digest="x")),
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


def test_a_sound_batch_passes_every_check(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.with_moments()
    verdict = judge(batch, tmp_path)
    assert verdict.has_passed
    assert set(verdict.passed) == ALL_CHECKS
    assert verdict.warnings == ()
    verdict.raise_if_failed()


def test_a_null_image_uri_is_named_by_its_row(tmp_path: Path) -> None:
    batch = StagedBatch.sound()
    batch.quarantine[0]["image_uri"] = None
    verdict = judge(batch, tmp_path)
    assert "row 0: image_uri is null" in {example for failure in verdict.failures for example in failure.examples}
    assert failed(verdict) == {"not_null", "keys", "counts"}
    assert QUARANTINE.name in verdict.failures[0].where[0]


@pytest.mark.parametrize(("runs", "found"), [(20, set()), (21, set()), (19, {"counts"})])
def test_each_view_of_an_image_is_a_run(runs: int, found: set[str], tmp_path: Path) -> None:
    views = parse_views("centre:0.6,centre:0.7,centre:0.8,centre:0.9")
    backbone = replace(backbone_named("efficientnet_lite0", views=views), dimension=8)
    batch = StagedBatch.sound(backbone=backbone)
    batch.counts.update(network_runs=runs)
    assert failed(judge(batch, tmp_path)) == found
