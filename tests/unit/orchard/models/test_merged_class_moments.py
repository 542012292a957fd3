"""The class moments of published batches: from the cache where they are of the version and the list, else from the features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from orchard.maintenance.repair import repair
from orchard.models.merged_moments import class_moments_of
from orchard.settings import Settings
from orchard.tables.batch_versions import readable_versions
from orchard.tables.commit_rule import Tables
from orchard_jobs.classifier.class_moments import ClassMoments, merge
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.scatter import unpack
from support import merged_classes
from support.changed_settings import with_variables
from support.damage import DAMAGES
from support.fake_jobs import FakeJobs
from support.faked_flow import run_batch
from support.merged_classes import merged_class_moments
from support.published_batches import DAYS

LABELS = ("apple", "pear", "unsorted")


def bucket_of(day: str, count: int = 15) -> dict[str, bytes]:
    return {f"images/{day}/{LABELS[n % 3]}/{n}.jpg": f"{day}{n}".encode() for n in range(count)}


def publish(tables: Tables, settings: Settings, *days: str) -> None:
    for day in days:
        run_batch(tables, settings, day, bucket_of(day))


def merged(tables: Tables, settings: Settings, unlabelled: tuple[str, ...] = ()) -> ClassMoments:
    backbone = settings.backbone.id
    return merged_class_moments(tables, backbone, readable_versions(tables, backbone), unlabelled)


def expected(tables: Tables, *labels: str) -> ClassMoments:
    rows = [row for row in tables.rows(FEATURES) if row["label"] in labels]
    return ClassMoments.of(np.array([row["features"] for row in rows], np.float32), [row["label"] for row in rows])


def check(found: ClassMoments, exact: ClassMoments) -> None:
    assert (found.labels, found.counts.tolist()) == (exact.labels, exact.counts.tolist())
    np.testing.assert_allclose(found.means, exact.means, rtol=1e-12, atol=1e-14)
    one, other = (unpack(moments.upper_triangle, moments.dimension) for moments in (found, exact))
    assert np.linalg.norm(one - other) <= 1e-12 * np.linalg.norm(other)


def refuse_features(patched: pytest.MonkeyPatch) -> None:
    patched.delattr(merged_classes, "class_moments_of")


def test_cached_class_moments_are_those_of_the_features(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tables, settings, *DAYS[:3])
    with monkeypatch.context() as patched:
        refuse_features(patched)
        check(merged(tables, settings), expected(tables, *LABELS))


def test_another_list_of_unlabelled_labels_reads_the_features(tables: Tables, settings: Settings) -> None:
    publish(tables, settings, *DAYS[:2])
    check(merged(tables, settings, ("unsorted",)), expected(tables, "apple", "pear"))


def test_the_setting_decides_what_a_new_version_caches(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_variables(settings, ORCHARD_UNLABELLED="unsorted, unknown")
    publish(tables, settings, *DAYS[:2])
    with monkeypatch.context() as patched:
        refuse_features(patched)
        check(merged(tables, settings, ("unknown", "unsorted")), expected(tables, "apple", "pear"))


def test_another_setting_makes_no_batch_different(tables: Tables, settings: Settings) -> None:
    publish(tables, settings, DAYS[0])
    before = readable_versions(tables, settings.backbone.id)
    publish(tables, with_variables(settings, ORCHARD_UNLABELLED="unsorted"), DAYS[0])
    assert readable_versions(tables, settings.backbone.id) == before


def test_a_small_batch_takes_its_class_moments_from_its_features(tables: Tables, settings: Settings) -> None:
    publish(tables, settings, DAYS[0])
    run_batch(tables, settings, DAYS[1], bucket_of(DAYS[1], 3))
    assert {file.partition["batch_id"] for file in tables.load(CLASS_MOMENTS).files()} == {DAYS[0]}
    check(merged(tables, settings), expected(tables, *LABELS))


def test_stale_class_moments_are_not_taken(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tables, settings, *DAYS[:2])
    with monkeypatch.context() as patched:
        patched.setattr(FakeJobs, "_moments", lambda *_: ())
        run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 21))
    check(merged(tables, settings), expected(tables, *LABELS))


def test_new_batches_are_merged_onto_what_a_classifier_has(tables: Tables, settings: Settings) -> None:
    backbone = settings.backbone.id
    publish(tables, settings, *DAYS[:2])
    held, sources = merged(tables, settings), readable_versions(tables, backbone)
    publish(tables, settings, DAYS[2])
    new = [version for version in readable_versions(tables, backbone) if version not in sources]
    check(merge(held, merged_class_moments(tables, backbone, new, ())), expected(tables, *LABELS))
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 21))  # replaced: merged from the start
    check(merged(tables, settings), expected(tables, *LABELS))


def relabel_one(tables: Tables, settings: Settings) -> Mapping[str, bytes]:
    """Publish a batch, then move one of its images to another label."""
    bucket = bucket_of(DAYS[0])
    run_batch(tables, settings, DAYS[0], bucket)
    moved = {f"images/{DAYS[0]}/pear/0.jpg": bucket.pop(f"images/{DAYS[0]}/apple/0.jpg")}
    run_batch(tables, settings, DAYS[0], bucket | moved)
    return bucket | moved


def counts(moments: ClassMoments) -> dict[str, int]:
    return dict(zip(moments.labels, moments.counts.tolist(), strict=True))


def test_an_image_that_was_moved_to_another_label_counts_once(tables: Tables, settings: Settings) -> None:
    bucket = relabel_one(tables, settings)
    assert len(list(tables.rows(FEATURES))) == len(bucket) + 1  # the row under the former label stays
    relabelled = {"apple": 4, "pear": 6, "unsorted": 5}
    assert counts(merged(tables, settings)) == relabelled
    (version,) = readable_versions(tables, settings.backbone.id)
    assert counts(class_moments_of(tables.warehouse, version, ())) == relabelled


def test_without_the_manifest_every_row_counts_as_listed(
    tables: Tables, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    relabel_one(tables, settings)
    (version,) = readable_versions(tables, settings.backbone.id)
    tables.warehouse.delete(manifest_path(version.manifest_digest))
    assert counts(class_moments_of(tables.warehouse, version, ())) == {"apple": 5, "pear": 6, "unsorted": 5}
    assert "counts no image as missing" in caplog.text


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_class_moments_cost_nothing_and_are_mended(tables: Tables, settings: Settings, damage: str) -> None:
    publish(tables, settings, *DAYS[:2])
    before = [row | {"scatter": [], "means": []} for row in tables.rows(CLASS_MOMENTS)]
    DAMAGES[damage](tables.warehouse, tables.load(CLASS_MOMENTS).files()[0].path)
    check(merged(tables, settings), expected(tables, *LABELS))
    repair(tables, settings, is_dry=False)
    after: list[dict[str, Any]] = [row | {"scatter": [], "means": []} for row in tables.rows(CLASS_MOMENTS)]
    assert sorted(after, key=repr) == sorted(before, key=repr)
    check(merged(tables, settings), expected(tables, *LABELS))
