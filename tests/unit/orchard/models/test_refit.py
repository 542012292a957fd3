"""pca_model: exact on all published batches, in any order; one model at a time; batches published meanwhile come next."""

from datetime import datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from orchard.models import model as models
from orchard.models import pca_refit
from orchard.models.captured import captured_shares
from orchard.models.merged_moments import merged_moments
from orchard.models.model import Model, current_promotion, read_model
from orchard.models.refit import pending_work, plan_model
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, MODELS, MOMENTS, PCA_FEATURES, PROMOTIONS
from orchard_jobs.pca.moments import Moments
from orchard_jobs.storage import Warehouse
from support.changed_settings import with_variables
from support.damage import DAMAGES, file_of
from support.fake_jobs import BROKEN, FakeJobs, vector_of
from support.faked_flow import rows, run_batch, run_model
from support.published_batches import DAYS, bucket_of, publish_days, publish_unreduced

DIMENSION = 8


def reference(k: int, *days: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, components (signs fixed) and covariance of the days' vectors, by one plain decomposition."""
    x = np.array([vector_of(content, DIMENSION) for day in days for content in bucket_of(day).values()], dtype=np.float64)
    covariance = np.cov(x.T)
    values, vectors = np.linalg.eigh(covariance)
    components = vectors.T[::-1][:k]
    signs = np.sign(components[np.arange(k), np.abs(components).argmax(axis=1)])
    return x.mean(axis=0), components * signs[:, None], covariance


def test_without_a_batch_there_is_nothing_to_do(tables: Tables, settings: Settings) -> None:
    assert pending_work(tables, settings) is None
    assert plan_model(tables, settings).action == "idle"


def test_the_first_model_is_the_pca_of_every_published_row(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, *DAYS)
    assert pending_work(tables, settings) is not None
    assert run_model(tables, settings).action == "fit"
    assert pending_work(tables, settings) is None
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    basis = read_model(tables.warehouse, promotion.model_id).basis
    mean, components, _ = reference(3, *DAYS)
    np.testing.assert_allclose(basis.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(basis.components, components, atol=1e-6)
    for row in tables.rows(PCA_FEATURES):
        day, name = row["image_uri"].split("/")[4], row["image_uri"].rsplit("/", 1)[1]
        vector = vector_of(f"{day}{name.removesuffix('.jpg')}".encode(), DIMENSION).astype(np.float64)
        np.testing.assert_allclose(row["pca_features"], (vector - mean) @ components.T, atol=1e-5)
    assert len(list(tables.rows(PCA_FEATURES))) == 60


def test_daily_runs_and_one_fit_agree_when_the_threshold_is_zero(tables: Tables, settings: Settings) -> None:
    always = with_variables(settings, ORCHARD_REFIT_GAIN=0.0)
    for day in reversed(DAYS):
        publish_days(tables, always, day)
        run_model(tables, always, day)
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    model = read_model(tables.warehouse, promotion.model_id)
    _, components, covariance = reference(3, *DAYS)
    np.testing.assert_allclose(model.basis.components, components, atol=1e-6)
    np.testing.assert_allclose(model.moments.second_moment / (model.moments.n - 1), covariance, rtol=1e-6)
    assert [row["predecessor"] is None for row in rows(tables, PROMOTIONS)].count(True) == 1


def test_a_small_gain_keeps_the_model_and_projects_what_it_lacks(tables: Tables, settings: Settings) -> None:
    patient = with_variables(settings, ORCHARD_REFIT_GAIN=1.0)
    publish_days(tables, patient, DAYS[0])
    run_model(tables, patient, "first")
    first = current_promotion(tables, settings.backbone.id)
    assert first is not None
    publish_unreduced(tables, patient, DAYS[1])
    decided = run_model(tables, patient, "second")
    assert decided.action == "keep"
    assert decided.projection is not None
    assert [batch.batch_id for _, batch in decided.projection.pairs] == [DAYS[1]]
    assert decided.gain is not None
    assert 0 < decided.gain < 1
    assert current_promotion(tables, settings.backbone.id) == first
    assert len(list(tables.rows(PCA_FEATURES, model_id=first.model_id))) == 24
    assert pending_work(tables, patient) is None


def test_a_batch_that_was_reduced_already_is_only_judged(tables: Tables, settings: Settings) -> None:
    patient = with_variables(settings, ORCHARD_REFIT_GAIN=1.0)
    publish_days(tables, patient, DAYS[0])
    run_model(tables, patient, "first")
    publish_days(tables, patient, DAYS[1])
    assert pending_work(tables, patient) == "the 2 published batches were not yet judged together"
    decided = run_model(tables, patient, "second")
    assert (decided.action, decided.projection) == ("keep", None)
    assert pending_work(tables, patient) is None
    assert plan_model(tables, patient).action == "idle"


def test_a_large_gain_fits_again_and_projects_every_batch(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, DAYS[0])
    run_model(tables, settings, "first")
    publish_days(tables, settings, *DAYS[1:])
    decided = run_model(tables, with_variables(settings, ORCHARD_REFIT_GAIN=0.001), "second")
    assert decided.action == "fit"
    assert decided.projection is not None
    assert [batch.batch_id for _, batch in decided.projection.pairs] == DAYS
    assert decided.model_id is not None
    shares = captured_shares(tables, decided.model_id)
    assert {batch_id for batch_id, _ in shares} == set(DAYS)
    assert all(share is not None and 0 < share < 1 for share in shares.values())


def test_the_gain_is_best_minus_kept(tables: Tables, settings: Settings) -> None:
    patient = with_variables(settings, ORCHARD_REFIT_GAIN=1.0)
    publish_days(tables, patient, DAYS[0])
    run_model(tables, patient, "first")
    publish_days(tables, patient, DAYS[1])
    gain = plan_model(tables, patient).gain
    _, old, _ = reference(3, DAYS[0])
    _, best, covariance = reference(3, *DAYS[:2])
    kept = [np.trace(v @ covariance @ v.T) / np.trace(covariance) for v in (best, old)]
    assert gain == pytest.approx(kept[0] - kept[1], rel=1e-6)


def test_another_k_fits_again(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, DAYS[0])
    run_model(tables, settings, "first")
    decided = run_model(tables, with_variables(settings, ORCHARD_COMPONENTS=2), "second")
    assert decided.action == "fit"
    assert {len(row["pca_features"]) for row in tables.rows(PCA_FEATURES) if row["model_id"] != _first(tables)} == {2}


def _first(tables: Tables) -> str:
    return str(min(tables.rows(PROMOTIONS), key=lambda row: row["sequence"])["model_id"])


def test_a_replaced_batch_is_merged_from_the_start(tables: Tables, settings: Settings) -> None:
    always = with_variables(settings, ORCHARD_REFIT_GAIN=0.0)
    publish_days(tables, always, *DAYS[:2])
    run_model(tables, always, "first")
    changed = bucket_of(DAYS[0]) | {f"images/{DAYS[0]}/apple/0.jpg": b"overwritten"}
    run_batch(tables, always, DAYS[0], changed)
    run_model(tables, always, "second")
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    model = read_model(tables.warehouse, promotion.model_id)
    vectors = [vector_of(content, DIMENSION) for content in [*changed.values(), *bucket_of(DAYS[1]).values()]]
    np.testing.assert_allclose(model.basis.mean, np.mean(vectors, axis=0, dtype=np.float64), rtol=1e-6)
    assert model.moments.n == 24


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_batch_that_nothing_tells_any_more_is_left_out(tables: Tables, settings: Settings, damage: str) -> None:
    always = with_variables(settings, ORCHARD_REFIT_GAIN=0.0)
    with patch.object(FakeJobs, "_moments", lambda *_: ()):
        publish_days(tables, always, *DAYS[:3])
    run_model(tables, always, "first")
    DAMAGES[damage](tables.warehouse, file_of(tables, FEATURES, batch_id=DAYS[1]).path)
    run_batch(tables, always, DAYS[0], bucket_of(DAYS[0], 13))  # so that all are merged from the start
    decided = run_model(tables, always, "second")
    assert decided.projection is not None
    assert [batch.batch_id for _, batch in decided.projection.pairs] == [DAYS[0], DAYS[2]]
    model = read_model(tables.warehouse, str(decided.model_id))
    assert ([batch_id for batch_id, _ in model.sources], model.moments.n) == ([DAYS[0], DAYS[2]], 13 + 12)


@pytest.mark.parametrize("bucket", [{"images/2026-01-01/a/1.jpg": b"one"}, {"images/2026-01-01/a/1.jpg": BROKEN}])
def test_images_without_variance_make_no_model_and_say_so(tables: Tables, settings: Settings, bucket: dict[str, bytes]) -> None:
    run_batch(tables, settings, DAYS[0], bucket)
    decided = run_model(tables, settings)
    assert decided.action == "none"
    assert "no variance" in decided.reason
    assert pending_work(tables, settings) is None
    assert rows(tables, MODELS) == []


def test_a_plan_reads_a_model_as_a_whole_once_at_most(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(warehouse: Warehouse, model_id: str) -> Model:
        read.append(model_id)
        return read_model(warehouse, model_id)

    for module in (models, pca_refit):
        monkeypatch.setattr(module, "read_model", counted)
    always = with_variables(settings, ORCHARD_REFIT_GAIN=-1.0)
    publish_days(tables, always, DAYS[0])
    run_model(tables, always, "first")
    read.clear()
    publish_days(tables, always, DAYS[1])
    assert read == []
    decided = plan_model(tables, always)
    assert decided.projection is not None
    assert decided.model_id in read  # the new one, from the file that counts
    assert len(read) == len(set(read)) == 2


def check_merged_moments(tables: Tables, settings: Settings) -> None:
    backbone = settings.backbone.id
    found, _ = merged_moments(tables, backbone, BatchVersions.load(tables, backbone).readable(), None)
    expected = Moments.of(np.array([row["features"] for row in tables.rows(FEATURES)], dtype=np.float32))
    assert found.n == expected.n
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    error = np.linalg.norm(found.second_moment - expected.second_moment) / np.linalg.norm(expected.second_moment)
    assert error < 1e-12


def test_cached_moments_are_those_of_the_features(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_days(tables, settings, *DAYS[:2])
    cached = {file.partition["batch_id"] for file in tables.load(MOMENTS).files(backbone=settings.backbone.id)}
    assert cached == set(DAYS[:2])
    with monkeypatch.context() as patched:
        patched.delattr("orchard.models.merged_moments.feature_chunks")
        check_merged_moments(tables, settings)


def test_stale_cached_moments_are_not_taken(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_days(tables, settings, *DAYS[:2])
    with monkeypatch.context() as patched:  # a new version whose moments never came: those of the old one stay
        patched.setattr(FakeJobs, "_moments", lambda *_: ())
        run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], 13))
    assert len(tables.load(MOMENTS).files(backbone=settings.backbone.id)) == 2
    check_merged_moments(tables, settings)


def test_a_clock_that_steps_back_hides_no_decision(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Past(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Past":
            return cls(2001, 1, 1, tzinfo=tz)

    publish_days(tables, settings, DAYS[0])
    run_model(tables, settings, "first")
    publish_days(tables, settings, DAYS[1])
    monkeypatch.setattr("orchard.models.publish.datetime", Past)
    run_model(tables, settings, "second")
    assert pending_work(tables, settings) is None
