"""What runs of the DAGs do, from a new batch to a refused one: a chain of runs, and what must be true after each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchard.models.kinds import CLASSIFIER, KINDS, PCA
from orchard.models.model import current_promotion
from orchard.settings import Settings
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, CLASSIFIERS, PREDICTIONS
from orchard_jobs.contract.columns import CAPTURED, FEATURES, MODEL_RUNS, MODELS, MOMENTS, PCA_FEATURES, RUNS
from orchard_jobs.contract.jobs import JobReport

from support.dag_runs import Airflow, airflow_with
from support.shown import shown_states
from support.warehouse_faults import stretch

FIRST, SECOND, BAD, DEAR, LABELLED = (f"2026-01-0{day}" for day in range(1, 6))
DONE = {"wait_for_uploads", "plan_batch", "featurize", "reduce", "validate", "publish", "record_lineage", "refresh_view"}
MODEL_DONE = {"plan_model", "project", "validate", "publish", "refresh_view"}


def images_of(day: str, count: int = 5, label: str = "kiwi") -> dict[str, bytes]:
    return {f"images/{day}/{label}/{n}.jpg": f"{day} {label} {n}".encode() for n in range(count)}


def _in_state(states: dict[str, str], state: str) -> set[str]:
    return {task for task, one in states.items() if one == state}


def whichever_task_comes_first_makes_the_tables(airflow: Airflow) -> None:
    states = airflow.run("reconcile_uploads", left_out="find_differences")
    assert _in_state(states, "skipped") == {"wake_model"}
    airflow.lose_tables()
    states = airflow.run("reconcile_uploads", left_out="wake_model")
    assert _in_state(states, "skipped") == {"find_differences"}
    airflow.lose_tables()
    assert "plan_model" in _in_state(airflow.run("pca_model"), "skipped")
    airflow.lose_tables()
    assert "find_differences" in _in_state(airflow.run("reconcile_uploads"), "skipped")
    airflow.lose_tables()


def one_image_makes_no_model(airflow: Airflow) -> None:
    airflow.bucket |= images_of(FIRST, 1)
    assert _in_state(airflow.run("image_batches", FIRST), "success") == DONE - {"reduce"}
    assert _in_state(airflow.run("reconcile_uploads"), "success") == {"wake_model"}
    for kind in KINDS:
        shown = {"refresh_view"} if kind is PCA else set()
        assert _in_state(airflow.run(kind.dag_id), "skipped") == {"plan_model", kind.stage, "validate", "publish", *shown}
    decided = {run["kind"]: run["action"] for run in airflow.tables.rows(MODEL_RUNS)}
    assert decided == {kind.name: "none" for kind in KINDS}
    assert _in_state(airflow.run("reconcile_uploads"), "skipped") == {"find_differences", "wake_model"}


def a_batch_is_published_and_recorded(airflow: Airflow) -> None:
    airflow.bucket |= images_of(FIRST)
    states = airflow.run("image_batches", FIRST)
    assert _in_state(states, "success") == DONE - {"reduce"}
    assert _in_state(states, "skipped") == {"reduce"}
    assert shown_states(airflow.tables.warehouse) == {FIRST: "published"}
    assert {row["image_uri"] for row in airflow.tables.rows(FEATURES)} == {f"s3://landing/{key}" for key in images_of(FIRST)}
    run = max(airflow.tables.rows(RUNS), key=lambda row: int(row["version"]))
    assert (run["version"], run["listed"], run["target"], run["audit_verdict"]) == (2, 5, "local", "passed")
    for table in (MOMENTS, CLASS_MOMENTS):
        assert [row["manifest_digest"] for row in airflow.tables.rows(table)] == [run["manifest_digest"]]
    assert airflow.prepared == {Settings.from_environment().backbone.id}
    assert (airflow.recorded[-1].head.digest, airflow.recorded[-1].run_id) == (run["manifest_digest"], run["run_id"])
    assert airflow.recorded[-1].versions["features"] == airflow.tables.load(FEATURES).version


def a_model_projects_what_is_published(airflow: Airflow) -> None:
    assert _in_state(airflow.run("pca_model"), "success") == MODEL_DONE
    assert len(list(airflow.tables.rows(PCA_FEATURES))) == 5
    promotion = current_promotion(airflow.tables, Settings.from_environment().backbone.id)
    assert promotion is not None
    assert [row["model_id"] for row in airflow.tables.rows(MODELS)] == [promotion.model_id]
    assert _captured(airflow) == {(promotion.model_id, FIRST)}
    assert sorted(run["action"] for run in airflow.tables.rows(MODEL_RUNS) if PCA.owns(run)) == ["fit", "none"]
    # Its images are all of one label.
    assert "plan_model" in _in_state(airflow.run("classifier_model"), "skipped")


def a_later_batch_is_reduced_and_an_unchanged_one_is_skipped(airflow: Airflow) -> None:
    airflow.bucket |= images_of(SECOND)
    assert _in_state(airflow.run("reconcile_uploads"), "success") == {"find_differences"}
    assert _in_state(airflow.run("image_batches", SECOND), "success") == DONE
    assert len(list(airflow.tables.rows(PCA_FEATURES))) == 10
    assert {batch_id for _, batch_id in _captured(airflow)} == {FIRST, SECOND}
    states = airflow.run("image_batches", SECOND)
    assert _in_state(states, "success") == {"wait_for_uploads"}
    assert _in_state(states, "skipped") == DONE - {"wait_for_uploads"}


def _captured(airflow: Airflow) -> set[tuple[str, str]]:
    """Return (model, batch) of what `captured` holds."""
    return {(row["model_id"], row["batch_id"]) for row in airflow.tables.rows(CAPTURED)}


def _damaging(airflow: Airflow, stage: str) -> Callable[[JobReport], None]:
    def damage(report: JobReport) -> None:
        for file in report.partitions[0].files if report.stage == stage else ():
            airflow.tables.warehouse.rewrite(file.path, bytes(file.size_bytes))

    return damage


def damaged_rows_of_a_batch_are_refused(airflow: Airflow) -> None:
    airflow.bucket |= images_of(BAD)
    airflow.after_job = _damaging(airflow, "reduce")
    states = airflow.run("image_batches", BAD)
    assert _in_state(states, "failed") == {"validate"}
    assert (states["refresh_view"], airflow.last_state) == ("success", "failed")
    assert shown_states(airflow.tables.warehouse) == {FIRST: "published", SECOND: "published", BAD: "refused"}
    airflow.after_job = lambda report: None
    assert BAD not in {row["batch_id"] for row in airflow.tables.rows(RUNS)}


def a_damaged_model_is_refused(airflow: Airflow) -> None:
    """A model whose components are no longer of length 1 is refused, with rows that fit it."""
    states = airflow.run("pca_model", COMPONENTS="1")
    assert _in_state(states, "success") == MODEL_DONE
    airflow.after_job = lambda report: stretch(airflow.tables.warehouse, _model_path(report))
    assert _in_state(airflow.run("pca_model", COMPONENTS="0.5"), "failed") == {"validate"}
    airflow.after_job = lambda report: None


def damaged_rows_of_a_model_are_refused(airflow: Airflow) -> None:
    airflow.after_job = _damaging(airflow, "project")
    assert _in_state(airflow.run("pca_model", COMPONENTS="2"), "failed") == {"validate"}
    airflow.after_job = lambda report: None


def _model_path(report: JobReport) -> str:
    return f"models/{report.partitions[0].partition[0]}/model.parquet"


def a_batch_beyond_the_budget_is_not_planned(airflow: Airflow) -> None:
    airflow.bucket |= images_of(DEAR)
    states = airflow.run("image_batches", DEAR, TARGET="emr", JOBS_URI="s3://b/k", EMR_CLUSTER="{}", MAX_EXECUTOR_HOURS="0")
    assert _in_state(states, "failed") == {"plan_batch"}


def a_classifier_is_fitted_and_predicts_what_is_published(airflow: Airflow) -> None:
    airflow.bucket |= images_of(LABELLED) | images_of(LABELLED, label="plum")
    assert _in_state(airflow.run("image_batches", LABELLED), "success") == DONE
    tasks = {"plan_model", "classify", "validate", "publish"}
    assert _in_state(airflow.run("classifier_model"), "success") == tasks
    backbone = Settings.from_environment().backbone.id
    promotion = current_promotion(airflow.tables, backbone, CLASSIFIER)
    assert promotion is not None
    (row,) = airflow.tables.rows(CLASSIFIERS)
    assert (row["model_id"], row["classes"]) == (promotion.model_id, ["kiwi", "plum"])
    predicted = {(row["batch_id"], row["image_uri"]) for row in airflow.tables.rows(PREDICTIONS)}
    assert predicted == {(row["batch_id"], row["image_uri"]) for row in airflow.tables.rows(FEATURES, backbone=backbone)}
    assert _in_state(airflow.run("classifier_model"), "skipped") == tasks
    airflow.after_job = _damaging(airflow, "classify")
    assert _in_state(airflow.run("classifier_model", CLASS_ROWS="2"), "failed") == {"validate"}
    airflow.after_job = lambda report: None
    assert [row["model_id"] for row in airflow.tables.rows(CLASSIFIERS)] == [promotion.model_id]


Chapter = Callable[[Airflow], None]
CHAPTERS: tuple[Chapter, ...] = (
    whichever_task_comes_first_makes_the_tables,
    one_image_makes_no_model,
    a_batch_is_published_and_recorded,
    a_model_projects_what_is_published,
    a_later_batch_is_reduced_and_an_unchanged_one_is_skipped,
    damaged_rows_of_a_batch_are_refused,
    a_damaged_model_is_refused,
    damaged_rows_of_a_model_are_refused,
    a_batch_beyond_the_budget_is_not_planned,
    a_classifier_is_fitted_and_predicts_what_is_published,
)


@dataclass
class Story:
    """The chapters, each played once and in order: a later one needs the tables that the earlier ones left.

    Attributes:
        airflow: the Airflow that they are played on.
        played: the chapters that have been played.
    """

    airflow: Airflow
    played: list[Chapter] = field(default_factory=list)

    def play_to(self, last: Chapter) -> None:
        """Play the chapters up to one; AssertionError where one does something else than its documentation says."""
        for chapter in CHAPTERS[len(self.played) : CHAPTERS.index(last) + 1]:
            self.played.append(chapter)
            chapter(self.airflow)


def check_runs(folder: Path) -> None:
    """Play all chapters."""
    with airflow_with(folder) as airflow:
        Story(airflow).play_to(CHAPTERS[-1])
