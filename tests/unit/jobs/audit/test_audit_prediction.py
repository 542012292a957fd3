"""The audit of predictions: each fault is found by its own check alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from orchard_jobs.audit.prediction_checks import PREDICTION_CHECKS, check_predicted
from orchard_jobs.audit.row_checks import CONTENT_CHECK, ROW_CHECKS
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.evaluations import Evaluation
from orchard_jobs.contract.jobs import JobReport, StagedPartition
from orchard_jobs.contract.layout import staged_path
from orchard_jobs.parquet import read_parquet
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.stages.prediction import predict_batches
from orchard_jobs.stages.staging import OwnPaths, Staging
from support.classified import DIGEST, REFERENCE, Classified
from support.own_process import WORKERS
from support.staged_batch import BACKBONE, PROCESS, WORK, Row, nullable, sha256, stage

PARTITION = (REFERENCE.model_id, "2026-01-05")


class Predicted:
    """The rows and the evaluation that a job made of a batch version, before they are written again."""

    def __init__(self, folder: Path) -> None:
        self.made = Classified(folder)
        staging = Staging(self.made.warehouse, OwnPaths(WORK))
        (partition,), self.evaluations = predict_batches(WORKERS, staging, [(REFERENCE, self.made.batch)])
        tables = (read_parquet(self.made.warehouse, file.path) for file in partition.files)
        self.rows: list[Row] = [row for table in tables for row in table.to_pylist()]

    def failed(self) -> set[str]:
        """Return the checks that fail."""
        path = staged_path(PREDICTIONS, PARTITION, WORK, PROCESS, "0.parquet")
        file = stage(self.made.warehouse, path, nullable(arrow_schema(PREDICTIONS)), self.rows)
        staged = (StagedPartition(PREDICTIONS.name, PARTITION, (file,)),)
        report = JobReport(WORK, "reduce", DIGEST, BACKBONE.id, "0.1.0", "app", staged, evaluations=self.evaluations)
        findings = Findings()
        findings.register_checks(ROW_CHECKS | CONTENT_CHECK | PREDICTION_CHECKS)
        check_predicted(self.made.warehouse, REFERENCE, self.made.batch, report, findings)
        return {failure.check for failure in findings.verdict().failures}


def test_what_a_job_made_is_sound(tmp_path: Path) -> None:
    assert Predicted(tmp_path).failed() == set()


def set_in(**values: Any) -> Callable[[Predicted], object]:
    return lambda predicted: predicted.rows[1].update(values)


def evaluated(change: Callable[[Evaluation], tuple[Evaluation, ...]]) -> Callable[[Predicted], object]:
    def damage(predicted: Predicted) -> None:
        predicted.evaluations = change(predicted.evaluations[0])

    return damage


def with_cell(**values: Any) -> Callable[[Predicted], object]:
    return evaluated(lambda one: (replace(one, cells=(replace(one.cells[0], **values), *one.cells[1:])),))


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("predicted_rows", lambda predicted: predicted.rows[1].update(image_uri="s3://landing/x")),
        ("predicted_rows", set_in(content_sha256=sha256("x"))),
        ("manifest_digest", set_in(manifest_digest=sha256("x"))),
        ("provenance", set_in(jobs_version="")),
        ("predictions", set_in(second="quince")),
        ("predictions", set_in(second_score=1.1)),
        ("predictions", set_in(second_score=-0.1)),
        ("predictions", set_in(distance=float("nan"))),
        ("predictions", set_in(distance=1e9, is_known=True)),
        ("evaluation", evaluated(lambda one: ())),
        ("evaluation", evaluated(lambda one: (one, one))),
        ("evaluation", evaluated(lambda one: (replace(one, manifest_digest=sha256("x")),))),
        ("evaluation", evaluated(lambda one: (replace(one, cells=one.cells[1:]),))),
        ("evaluation", evaluated(lambda one: (replace(one, cells=(*one.cells, one.cells[0])),))),
        ("evaluation", with_cell(rows=9)),
        ("evaluation", with_cell(known=9)),
        ("evaluation", with_cell(score=9.0)),
        ("evaluation", with_cell(among_three=9)),
    ],
)
def test_a_fault_is_found_by_its_own_check(check: str, damage: Callable[[Predicted], object], tmp_path: Path) -> None:
    predicted = Predicted(tmp_path)
    damage(predicted)
    assert check in predicted.failed()


@pytest.mark.parametrize("i", [0, 1])
def test_is_seen_is_held_against_what_computed_the_vector(i: int, tmp_path: Path) -> None:
    predicted = Predicted(tmp_path)
    predicted.rows[i]["is_seen"] ^= True
    assert "predictions" in predicted.failed()


def test_a_lost_row_and_one_that_occurs_twice_are_found(tmp_path: Path) -> None:
    lost, twice = Predicted(tmp_path / "lost"), Predicted(tmp_path / "twice")
    lost.rows.pop()
    twice.rows.append(dict(twice.rows[0]))
    assert lost.failed() == twice.failed() == {"predicted_rows", "evaluation"}
