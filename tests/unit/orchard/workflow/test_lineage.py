"""What a published batch says of itself as lineage."""

from typing import Any

import pytest
from orchard.batch.run import LineageRecord
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.workflow import lineage
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, run_model
from support.promoted_classifier import MODEL_ID, promote_classifier
from support.published_batches import DAYS, bucket_of, publish_days


def emitted(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what is emitted for a batch, reduced where there is a model."""
    head = plan(tables, settings, DAYS[1], bucket_of(DAYS[1]))
    assert head is not None
    jobs = FakeJobs(tables, bucket_of(DAYS[1]))
    featurized = jobs.featurize(head)
    versions = {"features": 1, "quarantine": 2, "pca_features": 3, "predictions": 4}
    told: dict[str, Any] = {}
    monkeypatch.setattr(lineage, "emit_dataset_lineage", lambda **arguments: told.update(arguments))
    lineage.emit_batch(settings, LineageRecord(head, featurized, jobs.reduce(head, featurized), versions, "run"))
    return told


def tables_of(told: dict[str, Any]) -> dict[str, str]:
    """Return the Delta version of each table that an event names."""
    return {output.name.rpartition("/")[2]: output.facets["version"].datasetVersion for output in told["outputs"]}


def test_a_batch_without_a_model_names_no_reduced_rows(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = emitted(tables, settings, monkeypatch)
    assert tables_of(told) == {"features": "1", "quarantine": "2"}
    assert told["additional_run_facets"]["orchard_batchVersion"].modelId is None


def test_a_reduced_batch_names_its_rows_and_model(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_days(tables, settings, DAYS[0])
    model_id = run_model(tables, settings).model_id
    told = emitted(tables, settings, monkeypatch)
    assert tables_of(told) == {"features": "1", "quarantine": "2", "pca_features": "3"}
    facet = told["additional_run_facets"]["orchard_batchVersion"]
    assert (facet.modelId, facet.jobIds) == (model_id, ["fake", "fake"])


def test_a_predicted_batch_names_its_predictions_and_classifier(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_classifier(tables, settings)
    told = emitted(tables, settings, monkeypatch)
    assert tables_of(told) == {"features": "1", "quarantine": "2", "predictions": "4"}
    facet = told["additional_run_facets"]["orchard_batchVersion"]
    assert (facet.modelId, facet.classifierId) == (None, MODEL_ID)
