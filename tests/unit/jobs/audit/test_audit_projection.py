"""The audit of a `project` job over two published batch versions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from orchard_jobs.audit.projection_checks import audit_projection
from orchard_jobs.audit.verdict import Verdict
from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES
from orchard_jobs.contract.jobs import BatchVersion, Captured, JobReport, Projection, ProjectionPlan, StagedPartition
from orchard_jobs.contract.layout import staged_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse
from support.staged_batch import BACKBONE, MODEL, PROCESS, WORK, Row, features_row, nullable, pca_row, sha256, stage

BATCHES = {"2026-01-05": range(3), "2026-01-06": range(3, 6)}
PINNED = ModelReference("model-2", "models/model-2.parquet", k=2)
PAIRS = ((MODEL, "2026-01-05"), (MODEL, "2026-01-06"), (PINNED, "2026-01-06"))


class Projected:
    """A plan of two models, its published features and the rows that a job staged for it."""

    def __init__(self, folder: Path) -> None:
        self.warehouse = Warehouse.at(str(folder))
        self.features = {name: [features_row(i, sha256(name)) for i in indices] for name, indices in BATCHES.items()}
        self.rows = {(model.model_id, name): [projected(row, model) for row in self.features[name]] for model, name in PAIRS}
        first, second = (self._publish(name) for name in BATCHES)
        self.plan = ProjectionPlan(BACKBONE.id, (Projection(MODEL, (first, second)), Projection(PINNED, (second,))))

    def report(self) -> JobReport:
        captured = tuple(Captured(*pair, sha256(pair[1]), len(rows), 2.0, 1.0) for pair, rows in self.rows.items())
        partitions = tuple(self._stage(*pair) for pair in self.rows)
        return JobReport(WORK, "project", self.plan.digest, BACKBONE.id, "0.1.0", "app-2", partitions, captured=captured)

    def verdict(self) -> Verdict:
        return audit_projection(self.warehouse, self.plan, self.report())

    def _publish(self, name: str) -> BatchVersion:
        path = f"features/{name}.parquet"
        stage(self.warehouse, path, arrow_schema(FEATURES), self.features[name])
        return BatchVersion(name, sha256(name), 1, (path,))

    def _stage(self, model_id: str, name: str) -> StagedPartition:
        path = staged_path(PCA_FEATURES, (model_id, name), WORK, PROCESS, "0.parquet")
        file = stage(self.warehouse, path, nullable(arrow_schema(PCA_FEATURES)), self.rows[model_id, name])
        return StagedPartition(PCA_FEATURES.name, (model_id, name), (file,))


def projected(row: Row, model: ModelReference) -> Row:
    return pca_row(row) | {"pca_features": [1.0, 2.0, 3.0][: model.k]}


def failed(verdict: Verdict) -> set[str]:
    return {failure.check for failure in verdict.failures}


def test_a_sound_projection_passes_every_check(tmp_path: Path) -> None:
    verdict = Projected(tmp_path).verdict()
    assert verdict.has_passed
    of_files, of_rows = "report files schema rows", "not_null manifest_digest provenance content_sha256 vector_length finite"
    assert set(verdict.passed) == {*of_files.split(), *of_rows.split(), "pca_rows", "captured"}


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("not_null", {"pca_features": None}),
        ("manifest_digest", {"manifest_digest": sha256("2026-01-05")}),
        ("provenance", {"jobs_version": ""}),
        ("vector_length", {"pca_features": [1.0, 2.0]}),
        ("finite", {"pca_features": [1.0, 2.0, float("-inf")]}),
        ("pca_rows", {"image_uri": "s3://landing/x"}),
        ("pca_rows", {"content_sha256": sha256("x")}),
    ],
)
def test_a_fault_in_a_row_is_found_by_its_own_check_only(check: str, change: Row, tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    projected.rows["model-1", "2026-01-06"][1].update(change)
    assert failed(projected.verdict()) == {check}


def test_a_malformed_content_is_found_although_features_have_it_too(tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    for rows in (projected.features["2026-01-05"], projected.rows["model-1", "2026-01-05"]):
        rows[0]["content_sha256"] = "short"
    projected._publish("2026-01-05")
    assert failed(projected.verdict()) == {"content_sha256"}


def test_rows_of_another_batch_are_lost_here_and_invented_there(tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    moved = projected.rows["model-1", "2026-01-05"].pop() | {"manifest_digest": sha256("2026-01-06")}
    projected.rows["model-1", "2026-01-06"].append(moved)
    (failure,) = projected.verdict().failures
    assert (failure.check, failure.count) == ("pca_rows", 2)
    assert "has no row" in failure.examples[0]
    assert "is not in features" in failure.examples[1]


@pytest.mark.parametrize(("check", "values"), [("vector_length", [1.0, 2.0, 3.0]), ("finite", [1.0, float("nan")])])
def test_each_models_rows_are_judged_by_its_own_length(check: str, values: list[float], tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    projected.rows["model-2", "2026-01-06"][0]["pca_features"] = values
    assert failed(projected.verdict()) == {check}


def test_a_row_that_one_model_lacks_is_found_although_the_other_has_it(tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    projected.rows["model-2", "2026-01-06"].pop()
    assert failed(projected.verdict()) == {"pca_rows"}


Change = Callable[[JobReport], JobReport]
REPORT_FAULTS: list[tuple[str, Change]] = [
    ("report", lambda report: replace(report, input_digest="other")),
    ("report", lambda report: replace(report, stage="reduce")),
    ("report", lambda report: replace(report, partitions=report.partitions[:1])),
    ("report", lambda report: replace(report, partitions=report.partitions + report.partitions[:1])),
    ("captured", lambda report: replace(report, captured=report.captured[:1])),
    ("captured", lambda report: replace(report, captured=report.captured + report.captured[:1])),
    ("captured", lambda report: replace(report, captured=tuple(replace(one, kept=3.0) for one in report.captured))),
    ("captured", lambda report: replace(report, captured=tuple(replace(one, model_id="model-1") for one in report.captured))),
]


@pytest.mark.parametrize(("check", "change"), REPORT_FAULTS)
def test_a_fault_in_the_report_is_found(check: str, change: Change, tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    assert failed(audit_projection(projected.warehouse, projected.plan, change(projected.report()))) == {check}


def test_published_features_that_are_gone_fail(tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    (tmp_path / "features/2026-01-05.parquet").unlink()
    verdict = projected.verdict()
    assert failed(verdict) == {"files"}
    assert verdict.warnings == ("rows were not checked, because the report or a file check failed",)


def test_a_batch_without_rows_has_an_empty_projection(tmp_path: Path) -> None:
    projected = Projected(tmp_path)
    report = projected.report()
    (first, second) = projected.plan.projections[0].batches
    plan = replace(projected.plan, projections=(Projection(MODEL, (replace(first, files=()), second)),))
    empty = Captured("model-1", "2026-01-05", sha256("2026-01-05"), 0, 0.0, 0.0)
    partitions = (replace(report.partitions[0], files=()), report.partitions[1])
    report = replace(report, input_digest=plan.digest, partitions=partitions, captured=(empty, report.captured[1]))
    assert audit_projection(projected.warehouse, plan, report).has_passed


def test_a_plan_crosses_the_wire_as_it_is(tmp_path: Path) -> None:
    plan = replace(Projected(tmp_path).plan, attempt=3)
    again = ProjectionPlan.from_json(plan.to_json())
    assert (again, again.digest) == (plan, plan.digest)
    assert [(model.model_id, batch.batch_id) for model, batch in plan.pairs] == [(model.model_id, name) for model, name in PAIRS]
