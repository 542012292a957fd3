"""Predictions and coordinates of batch versions: one operation, one reading of each features file, every row accounted for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orchard_jobs.audit.prediction_checks import PREDICTION_CHECKS, check_predicted
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.classifier.predict import predict
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.evaluations import Evaluation
from orchard_jobs.contract.jobs import BatchVersion, JobReport
from orchard_jobs.errors import JobError
from orchard_jobs.parquet import open_parquet, read_parquet
from orchard_jobs.stages import model_rows
from orchard_jobs.stages.prediction import PREDICTION, predict_batches
from orchard_jobs.stages.staging import OwnPaths, Staging
from support.classified import DIGEST, REFERENCE, Classified
from support.own_process import WORKERS
from support.staged_batch import BACKBONE, WORK


def run(made: Classified, *batches: BatchVersion) -> tuple[JobReport, tuple[Evaluation, ...]]:
    staging = Staging(made.warehouse, OwnPaths(WORK))
    staged, evaluations = predict_batches(WORKERS, staging, [(REFERENCE, batch) for batch in batches])
    return JobReport(WORK, "project", DIGEST, BACKBONE.id, "0.1.0", "app", staged, evaluations=evaluations), evaluations


def rows_of(made: Classified, report: JobReport) -> list[dict[str, Any]]:
    paths = [file.path for partition in report.of_table(PREDICTIONS.name) for file in partition.files]
    return [row for path in paths for row in read_parquet(made.warehouse, path).to_pylist()]


def test_each_features_row_has_what_the_classifier_says_of_it(tmp_path: Path) -> None:
    made = Classified(tmp_path)
    report, _ = run(made, made.batch)
    found = {row["image_uri"]: row for row in rows_of(made, report)}
    assert found.keys() == {row["image_uri"] for row in made.features}
    exact = predict(np.array([row["features"] for row in made.features], np.float32), made.stored)
    for place, features in enumerate(made.features):
        row = found[features["image_uri"]]
        assert (row["label"], row["content_sha256"], row["manifest_digest"]) == (
            features["label"],
            features["content_sha256"],
            DIGEST,
        )
        assert (row["predicted"], row["second"]) == (exact.names(0)[place], exact.names(1)[place])
        # Another number of rows at once gives another rounding.
        np.testing.assert_allclose([row["score"], row["second_score"]], exact.scores[place], rtol=1e-9)
        np.testing.assert_allclose(row["distance"], exact.distance[place], rtol=1e-9)
        assert (row["is_known"], row["is_seen"]) == (exact.is_known[place], features["computed_in"] != DIGEST)
    assert {row["is_known"] for row in found.values()} == {True, False}


def test_the_evaluation_counts_unseen_seen_and_unlabelled_rows(tmp_path: Path) -> None:
    made = Classified(tmp_path)
    _, (found,) = run(made, made.batch)
    assert (found.model_id, found.batch_id, found.manifest_digest) == (REFERENCE.model_id, "2026-01-05", DIGEST)
    # Rows 0, 4 and 8 were computed earlier; row 3 has no label, that of row 4 no class.
    counts = [sum(cell.rows for cell in cells) for cells in (found.unseen, found.seen, found.unlabelled)]
    assert counts == [5, 2, 2]
    assert {cell.truth for cell in found.unseen} == {"plum", "pome"}


def test_rows_of_a_batch_that_the_classifier_was_fitted_on_are_seen(tmp_path: Path) -> None:
    made = Classified(tmp_path, (("2026-01-05", "an earlier manifest"),))
    report, (found,) = run(made, made.batch)
    assert found.unseen == ()
    assert all(row["is_seen"] for row in rows_of(made, report))


def test_each_features_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, opened = Classified(tmp_path), list[str]()

    def counted(warehouse: Any, path: str, **options: Any) -> Any:
        opened.append(path)
        return open_parquet(warehouse, path, **options)

    monkeypatch.setattr("orchard_jobs.stages.model_rows.open_parquet", counted)
    staging = Staging(made.warehouse, OwnPaths(WORK))
    other = BatchVersion("2026-01-06", DIGEST, 1, made.batch.files[:1])
    wanted = [model_rows.Wanted(PREDICTION, REFERENCE, one) for one in (made.batch, other)]
    staged = model_rows.stage_rows(WORKERS, staging, wanted)
    assert [one.partition.rows for one in staged] == [9, 5]
    assert opened == [*made.batch.files, made.batch.files[0]]


def test_a_batch_without_a_good_image_has_no_predictions(tmp_path: Path) -> None:
    made = Classified(tmp_path)
    report, (found,) = run(made, BatchVersion("2026-01-06", DIGEST, 1, ()))
    assert (found.cells, report.partitions[0].files) == ((), ())


def test_a_classifier_that_is_not_there_ends_the_job_at_once(tmp_path: Path) -> None:
    made = Classified(tmp_path)
    made.warehouse.delete(REFERENCE.path)
    with pytest.raises(JobError, match="is not there"):
        run(made, made.batch)


def test_the_audit_agrees(tmp_path: Path) -> None:
    for name, sources in (("fresh", ()), ("fitted on", (("2026-01-05", "x"),))):
        made = Classified(tmp_path / name, sources)
        report, _ = run(made, made.batch)
        findings = Findings()
        findings.register_checks(PREDICTION_CHECKS)
        check_predicted(made.warehouse, REFERENCE, made.batch, report, findings)
        assert findings.verdict().failures == ()
