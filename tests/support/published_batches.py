"""Batches that tests publish: their days, their images, and the runs that publish them."""

from unittest.mock import patch

from orchard.batch import plan as batch_plan
from orchard.models.model import current_promotion
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES

from support.fake_jobs import BROKEN
from support.faked_flow import run_batch, run_model

DAYS = [f"2026-01-0{n}" for n in range(1, 6)]


def bucket_of(day: str, count: int = 12) -> dict[str, bytes]:
    return {f"images/{day}/apple/{n}.jpg": f"{day}{n}".encode() for n in range(count)}


def publish_days(tables: Tables, settings: Settings, *days: str) -> None:
    for day in days:
        run_batch(tables, settings, day, bucket_of(day))


def publish_unreduced(tables: Tables, settings: Settings, day: str) -> None:
    """Publish a batch as a run does that was planned before there was a model."""
    with patch.object(batch_plan, "current_model", lambda *_: None):
        run_batch(tables, settings, day, bucket_of(day))


def images_of(tables: Tables, model_id: str) -> set[tuple[str, str]]:
    return {(row["image_uri"], row["manifest_digest"]) for row in tables.rows(PCA_FEATURES, model_id=model_id)}


def published_images(tables: Tables) -> set[tuple[str, str]]:
    return {(row["image_uri"], row["manifest_digest"]) for row in tables.rows(FEATURES)}


BUCKETS = {
    DAYS[0]: bucket_of(DAYS[0]),
    DAYS[1]: bucket_of(DAYS[1]) | {f"images/{DAYS[1]}/apple/broken.jpg": BROKEN},
    DAYS[2]: {f"images/{DAYS[2]}/apple/broken.jpg": BROKEN},
}


def publish_backbone(tables: Tables, settings: Settings) -> str:
    """Publish every batch with the current backbone, and its model; return the model's id."""
    for day, bucket in BUCKETS.items():
        run_batch(tables, settings, day, bucket)
    run_model(tables, settings, settings.backbone.id)
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    return promotion.model_id
