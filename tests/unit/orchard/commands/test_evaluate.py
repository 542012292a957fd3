"""`orchard evaluate`: figures that follow from the published predictions, of unseen images alone."""

import argparse
import json
from typing import Any

import pytest
from orchard.commands import evaluate as command
from orchard.models.kinds import CLASSIFIER
from orchard.models.model import model_reference
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.classifier.stored import read_classifier
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.errors import ConfigurationError
from support.faked_flow import run_batch
from support.promoted_classifier import MODEL_ID, promote_classifier
from support.published_batches import DAYS

LABELS = ("apple", "pear", "plum")
OTHER = "lda-fedcba9876543210"


def call(tables: Tables, settings: Settings, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(argv), settings, tables)


def answer(tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert call(tables, settings, "--json", *argv) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def bucket_of(day: str, count: int = 30) -> dict[str, bytes]:
    labelled = {f"images/{day}/{LABELS[n % 3]}/{n}.jpg": f"{day}{n}".encode() for n in range(count)}
    return labelled | {f"images/{day}/{n}.jpg": f"{day} unlabelled {n}".encode() for n in range(2)}


@pytest.fixture
def predicted(tables: Tables, settings: Settings) -> Tables:
    """Two batches that the current classifier predicted, of which it was fitted on the second."""
    promote_classifier(tables, settings, MODEL_ID, DAYS[1])
    for day in DAYS[:2]:
        run_batch(tables, settings, day, bucket_of(day))
    return tables


def unseen_rows(tables: Tables) -> list[tuple[str, str, float]]:
    """Return (class, predicted, score) of each unseen labelled image, from the rows themselves."""
    class_of = read_classifier(tables.warehouse, model_reference(tables.warehouse, MODEL_ID, CLASSIFIER)).class_of
    rows = tables.rows(PREDICTIONS, model_id=MODEL_ID, batch_id=DAYS[0])
    return [(class_of[row["label"]], row["predicted"], row["score"]) for row in rows if row["label"]]


def test_batches_and_classes_follow_from_the_predictions(
    predicted: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    found, rows = answer(predicted, settings, capsys), unseen_rows(predicted)
    first, second = found["batches"]
    right = sum(name == got for name, got, _ in rows)
    assert (first["batch_id"], first["unseen_rows"], first["accuracy"]) == (DAYS[0], 30, right / 30)
    assert (second["batch_id"], second["unseen_rows"], second["seen_rows"], second["accuracy"]) == (DAYS[1], 0, 30, None)
    for one in found["classes"]:
        assert one["rows"] == sum(name == one["name"] for name, _, _ in rows)
        assert one["right"] == sum(name == got == one["name"] for name, got, _ in rows)
        assert one["predicted"] == sum(got == one["name"] for _, got, _ in rows)
    assert sum(one["rows"] for one in found["mistakes"]) == 30 - right > 0
    assert [one["rows"] for one in found["mistakes"]] == sorted((one["rows"] for one in found["mistakes"]), reverse=True)


def test_bins_hold_each_unseen_image_by_its_score(
    predicted: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    found, rows = answer(predicted, settings, capsys), unseen_rows(predicted)
    assert sum(one["rows"] for one in found["bins"]) == 30
    error = 0.0
    for one in found["bins"]:
        own = [row for row in rows if one["low"] <= row[2] < one["high"] or row[2] == one["high"] == 1]
        assert (one["rows"], one["right"]) == (len(own), sum(name == got for name, got, _ in own))
        assert one["score"] == pytest.approx(sum(score for _, _, score in own) / len(own))
        error += abs(one["right"] - sum(score for _, _, score in own)) / 30
    assert found["calibration_error"] == pytest.approx(error)


def test_one_batch_and_one_classifier_can_be_asked_for(
    predicted: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [one["batch_id"] for one in answer(predicted, settings, capsys, "--batch", DAYS[1])["batches"]] == [DAYS[1]]
    assert len(answer(predicted, settings, capsys, "--model", MODEL_ID[:8])["batches"]) == 2
    with pytest.raises(ConfigurationError, match="never published"):
        call(predicted, settings, "--batch", DAYS[3])
    with pytest.raises(ConfigurationError, match="no model has the id"):
        call(predicted, settings, "--model", "lda-x")


def test_an_older_version_of_a_batch_does_not_count(
    predicted: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_batch(predicted, settings, DAYS[0], bucket_of(DAYS[0], 36))
    first = answer(predicted, settings, capsys)["batches"][0]
    assert (first["rows"], first["unseen_rows"], first["seen_rows"]) == (38, 6, 30)


def test_the_text_shows_each_part(predicted: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(predicted, settings) == 0
    out = capsys.readouterr().out
    for words in ("batch ", "class ", "taken for", "mean score", "expected calibration error: ", f"{DAYS[1]}  {MODEL_ID}"):
        assert words in out
    call(predicted, settings, "--batch", DAYS[1])
    assert "no image with a label is new" in capsys.readouterr().out


def test_without_predictions_it_says_what_makes_them(
    tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert call(tables, settings) == 0
    assert "nothing is predicted yet: classifier_model" in capsys.readouterr().out
