"""The claim that the tables depend on what is in the bucket alone: they are those of one clean run of each batch."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from orchard.batch.plan import plan_batch
from orchard.models.kinds import CLASSIFIER
from orchard.models.model import current_promotion, pinned_models, read_model
from orchard.models.registry import release
from orchard.tables.batch_versions import readable_versions
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, EVALUATIONS, PREDICTIONS
from orchard_jobs.contract.columns import CAPTURED, FEATURES, MOMENTS, PCA_FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.pca.fit import Spectrum

from support.changed_settings import with_variables
from support.fake_jobs import counted_rows
from support.listed_bucket import listing
from support.merged_classes import merged_class_moments
from support.simulation.run_records import Run
from support.simulation.store import in_memory
from support.simulation.world import DAYS, PROVENANCE, World

SECRET = b"secret"  # is only uploaded encrypted


def check_against_clean_run(world: World, with_refits: bool = True) -> None:
    """Hold the settled tables against one clean run of each batch over the last seen content of every key.

    Args:
        world: the settled world.
        with_refits: whether models are fitted on both sides and compared, too; that takes as long as all else.
    """
    backbone = world.settings.backbone.id
    unreadable = _over_a_former_limit(world)
    bucket = {key: content for day in DAYS for key, content in world.last_seen(day).items() if key not in unreadable}
    clean = World.of(in_memory(), world.settings, bucket)
    clean.tables.create_all()
    clean.run_each(DAYS)
    if with_refits:
        clean.settle_model()
    for table in (FEATURES, QUARANTINE):
        assert _published(world, table) == _published(clean, table)
    ran = {row["batch_id"] for row in world.tables.rows(RUNS, backbone=backbone)}
    # A batch whose every image had vanished when it was read, and that lists nothing since, has a version without an image.
    listed_or_kept = {row["batch_id"] for table in (FEATURES, QUARANTINE) for row in _published(world, table)}
    assert ran & (listed_or_kept | {day for day in DAYS if world.of_batch(day)}) == {
        row["batch_id"] for row in clean.tables.rows(RUNS, backbone=backbone)
    }
    # A batch that lists nothing and whose version was cut off before its first row has nothing to go on with.
    for day in {day for day in DAYS if world.of_batch(day)} | ran:
        assert plan_batch(world.tables, world.settings, day, listing(world.of_batch(day))) is None
    for one in (world, clean):
        check_class_moments(one)
    check_predictions(world)
    if with_refits:
        _check_model(world, clean)
    elif current_promotion(world.tables, backbone) is not None:
        _check_rows(world)


def check_class_moments(world: World) -> None:
    """The merged class moments are those of one pass over all rows that count, whichever labels mean no label."""
    backbone = world.settings.backbone.id
    versions = readable_versions(world.tables, backbone)
    for unlabelled in {world.settings.classifier.unlabelled, (), ("b",)}:
        found = merged_class_moments(world.tables, backbone, versions, unlabelled)
        counted = [row for version in versions for row in _counted(world, version.batch_id, unlabelled)]
        vectors = np.array([row["features"] for row in counted], np.float32).reshape(
            len(counted), world.settings.backbone.dimension
        )
        exact = ClassMoments.of(vectors, [row["label"] for row in counted])
        assert (found.labels, found.counts.tolist()) == (exact.labels, exact.counts.tolist())
        if counted:
            np.testing.assert_allclose(found.means, exact.means, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(found.upper_triangle, exact.upper_triangle, rtol=1e-9, atol=1e-12)


def check_cached_moments(world: World) -> None:
    """Where no run was lost, each version whose statistics are no larger than its features has them in their tables."""
    backbone = world.settings.backbone
    for version in readable_versions(world.tables, backbone.id):
        where = {"backbone": backbone.id, "batch_id": version.batch_id}
        count = sum(1 for _ in world.tables.rows(FEATURES, ("image_uri",), **where))
        for table in (MOMENTS, CLASS_MOMENTS):
            held = {row["manifest_digest"] for row in world.tables.rows(table, ("manifest_digest",), **where)}
            assert count < backbone.dimension / 2 or version.manifest_digest in held, f"{table.name} lacks {version.batch_id}"


def _counted(world: World, batch_id: str, unlabelled: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """Return the rows of a batch that count; the model of the world knows which images were missing."""
    rows = list(world.tables.rows(FEATURES, backbone=world.settings.backbone.id, batch_id=batch_id))
    missing = {f"s3://landing/{key}" for row in rows for key in world.seen[row["manifest_digest"]].missing}
    return counted_rows(rows, unlabelled, missing)


def _over_a_former_limit(world: World) -> set[str]:
    """Return the keys of images that are gone, and whose rows tell of a limit as it was when they could be read."""
    rows = world.tables.rows(QUARANTINE, backbone=world.settings.backbone.id)
    over = {row["image_uri"].removeprefix("s3://landing/") for row in rows if row["reason"] == "over the pixel limit"}
    return over - world.bucket.keys()


def _published(world: World, table: Table) -> list[dict[str, Any]]:
    # A batch that lists nothing is not planned, so the row of an image that had vanished stays until something is listed.
    unreadable = _over_a_former_limit(world)
    found = (
        row
        for row in world.tables.rows(table, backbone=world.settings.backbone.id)
        if row.get("reason") != "vanished" or world.of_batch(row["batch_id"])
        if row["image_uri"].removeprefix("s3://landing/") not in unreadable
    )
    kept = ({name: value for name, value in row.items() if name not in PROVENANCE} for row in found)
    return sorted(kept, key=lambda row: (row["batch_id"], row["image_uri"]))


def _check_model(world: World, clean: World) -> None:
    """Before a refit the model keeps enough; after one on both sides, moments and subspaces are equal."""
    backbone = world.settings.backbone.id
    promotion = current_promotion(world.tables, backbone)
    if current_promotion(clean.tables, backbone) is None:
        # Nothing can be fitted where all rows are alike; a model of former days stays.
        assert len({tuple(row["features"]) for row in world.tables.rows(FEATURES, backbone=backbone)}) <= 1
        if promotion is not None:
            _check_rows(world)
        return
    assert promotion is not None
    fresh = Spectrum.of(_refitted(clean).moments)
    _check_rows(world)
    release(world.tables, world.settings)
    world.settle_model()
    promotion = current_promotion(world.tables, backbone)
    assert promotion is not None
    kept = fresh.gain(read_model(world.tables.warehouse, promotion.model_id).basis.components, world.settings.model.components)
    assert kept <= world.settings.model.refit_gain + 1e-9
    _check_rows(world)
    one, other = _refitted(world), _refitted(clean)
    _check_rows(world)
    difference = np.linalg.norm(one.moments.second_moment - other.moments.second_moment)
    assert difference <= 1e-12 * np.linalg.norm(other.moments.second_moment)
    assert one.moments.n == other.moments.n
    k = one.basis.k_used
    assert k == other.basis.k_used
    values = np.append(fresh.eigenvalues, 0.0)
    gap = (values[k - 1] - values[k]) / values[0]
    if gap >= 1e-10:
        w, v = one.basis.components, other.basis.components
        assert np.linalg.norm(w - w @ v.T @ v, 2) <= 1e-12 + 1e-14 / gap


def _refitted(world: World) -> Any:
    """Fit anew whatever the gain, and return the model."""
    kept = world.settings
    world.settings = with_variables(kept, ORCHARD_REFIT_GAIN=-10.0)
    try:
        world.operation += 1
        world.run_model()
    finally:
        world.settings = kept
    promotion = current_promotion(world.tables, kept.backbone.id)
    assert promotion is not None
    return read_model(world.tables.warehouse, promotion.model_id)


def _check_rows(world: World) -> None:
    """The current model and each pinned one have the rows of every published batch's current version."""
    backbone = world.settings.backbone.id
    promotion = current_promotion(world.tables, backbone)
    assert promotion is not None
    features = {(row["image_uri"], row["manifest_digest"]) for row in world.tables.rows(FEATURES, backbone=backbone)}
    for model_id in {promotion.model_id, *pinned_models(world.tables, backbone)}:
        rows = list(world.tables.rows(PCA_FEATURES, model_id=model_id))
        assert {(row["image_uri"], row["manifest_digest"]) for row in rows} == features
        assert len(rows) == len(features)
    found = [(row["model_id"], row["manifest_digest"]) for row in world.tables.rows(CAPTURED)]
    assert len(found) == len(set(found))
    assert {(promotion.model_id, digest) for _, digest in features} <= set(found)


def check_predictions(world: World) -> None:
    """The current classifier, if there is one, predicts each image of every batch's current version, and is counted once."""
    backbone = world.settings.backbone.id
    promotion = current_promotion(world.tables, backbone, CLASSIFIER)
    rows = list(world.tables.rows(PREDICTIONS, model_id=promotion.model_id)) if promotion else []
    features = {(row["image_uri"], row["manifest_digest"]) for row in world.tables.rows(FEATURES, backbone=backbone)}
    assert {(row["image_uri"], row["manifest_digest"]) for row in rows} == (features if promotion else set())
    assert len(rows) == (len(features) if promotion else 0)
    found = [(row["model_id"], row["manifest_digest"]) for row in world.tables.rows(EVALUATIONS)]
    assert len(found) == len(set(found))
    assert not promotion or {(promotion.model_id, digest) for _, digest in features} <= set(found)


def check_network_runs(runs: list[Run]) -> None:
    """No content goes through a backbone twice by runs that do not overlap; by overlapping ones once a run.

    But for what is encrypted: nothing tells that it is known.
    """
    untold = hashlib.sha256(SECRET).hexdigest()
    done: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        assert len(run.computed) == len(set(run.computed))
        for content in (one for one in run.computed if one[1] != untold):
            for earlier in done.setdefault(content, []):
                assert earlier.began <= run.ended
                assert run.began <= earlier.ended
            done[content].append(run)
