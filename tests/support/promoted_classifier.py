"""A current classifier without its DAG, for tests of what is done with one."""

from orchard.models.kinds import CLASSIFIER
from orchard.models.publish import publish_file
from orchard.models.registry import PromotionRequest, append_promotion
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.classifier.stored import create_classifier
from orchard_jobs.contract.layout import model_path

from support.classified import MODEL_ID as MODEL_ID
from support.classified import fitted


def promote_classifier(tables: Tables, settings: Settings, model_id: str = MODEL_ID, *batch_ids: str) -> None:
    """Make a classifier current and held that was fitted on some batches."""
    backbone, dimension = settings.backbone.id, settings.backbone.dimension
    stored, moments = fitted(backbone, tuple((batch_id, "0" * 64) for batch_id in batch_ids), model_id, dimension)
    create_classifier(tables.warehouse, model_path(model_id, CLASSIFIER.models), stored, moments)
    publish_file(tables, model_id, CLASSIFIER)
    assert append_promotion(tables, PromotionRequest(backbone, model_id, None, "by hand", is_held=True, kind=CLASSIFIER))
