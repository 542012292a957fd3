"""classifier_model: when it fits, what it promotes, and that a classifier has the life of any model."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from orchard.maintenance.clean import clean
from orchard.maintenance.repair import repair
from orchard.maintenance.verify import verify
from orchard.models import run
from orchard.models.kinds import CLASSIFIER, PCA
from orchard.models.model import current_promotion, known_model, pinned_models
from orchard.models.model_plan import ModelPlan, read_projection
from orchard.models.refit import pending_work, pending_works
from orchard.models.registry import pin, promote, release, unpin
from orchard.outcomes import Done, Failed, Skipped
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.classifier.stored import read_classifier
from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, CLASSIFIERS
from orchard_jobs.contract.columns import MODEL_RUNS, MODELS, PINS, PROMOTIONS
from orchard_jobs.contract.jobs import ClassifierFit
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import ConfigurationError
from support.changed_settings import with_variables
from support.damage import DAMAGES
from support.fake_jobs import FakeJobs
from support.faked_flow import run_batch, run_model, value_of
from support.published_batches import DAYS
from support.warehouse_faults import overwritten

PAIR = {"apple": 12, "plum": 12}


def publish(tables: Tables, settings: Settings, day: str, **labels: int) -> None:
    names = [f"{label}/{n}" for label, count in labels.items() for n in range(count)]
    run_batch(tables, settings, day, {f"images/{day}/{name}.jpg": f"{day}/{name}".encode() for name in names})


def classify(tables: Tables, settings: Settings, run_id: str = "run", **compared: int) -> ModelPlan:
    jobs = FakeJobs(tables, {})
    jobs.compared |= compared
    return run_model(tables, settings, run_id, CLASSIFIER, jobs)


def current(tables: Tables, settings: Settings) -> str:
    promotion = current_promotion(tables, settings.backbone.id, CLASSIFIER)
    assert promotion is not None
    return promotion.model_id


@pytest.fixture
def fitted(tables: Tables, settings: Settings) -> str:
    """The id of a current classifier of apples and plums, of two batches."""
    for day in DAYS[:2]:
        publish(tables, settings, day, **PAIR)
    assert classify(tables, settings, "first").action == "fit"
    return current(tables, settings)


def reference(model_id: str) -> ModelReference:
    return ModelReference(model_id, model_path(model_id, CLASSIFIERS), 2)


def test_the_first_classifier_is_fitted_published_and_promoted(tables: Tables, settings: Settings, fitted: str) -> None:
    (row,) = tables.rows(CLASSIFIERS)
    assert (row["model_id"], row["classes"], row["n"], row["held_out"]) == (fitted, ["apple", "plum"], 48, "batches")
    assert [source["batch_id"] for source in row["merged_from"]] == DAYS[:2]
    (promotion,) = tables.rows(PROMOTIONS)
    assert (promotion["kind"], promotion["sequence"], promotion["predecessor"]) == ("classifier", 1, None)
    (told,) = tables.rows(MODEL_RUNS)
    assert (told["kind"], told["action"], told["reason"]) == ("classifier", "fit", "there is no classifier yet")
    assert pending_work(tables, settings, CLASSIFIER) is None
    assert isinstance(run.plan(tables, settings, "again", CLASSIFIER), Skipped)


def test_each_kind_has_its_own_line_of_promotions_and_work(tables: Tables, settings: Settings, fitted: str) -> None:
    assert list(pending_works(tables, settings)) == ["pca_model"]
    run_model(tables, settings, "pca")
    assert pending_works(tables, settings) == {}
    pca = current_promotion(tables, settings.backbone.id)
    assert pca is not None
    assert (pca.sequence, pca.model_id[:4], fitted[:4]) == (1, "pca-", "lda-")
    assert current(tables, settings) == fitted
    assert [row["model_id"] for row in tables.rows(MODELS)] == [pca.model_id]


def test_a_little_more_is_no_reason_to_fit_again(tables: Tables, settings: Settings, fitted: str) -> None:
    publish(tables, settings, DAYS[2], apple=2)
    assert "not yet judged" in str(pending_work(tables, settings, CLASSIFIER))
    assert classify(tables, settings).action == "keep"
    assert pending_work(tables, settings, CLASSIFIER) is None
    assert current(tables, settings) == fitted


def test_growth_is_a_reason(tables: Tables, settings: Settings, fitted: str) -> None:
    publish(tables, settings, DAYS[2], apple=3)
    decided = classify(tables, settings)
    assert (decided.action, decided.reason) == ("fit", "3 labelled images are new to it, of 48 that it was fitted on")
    assert current(tables, settings) != fitted


def test_growth_counts_what_is_new_since_the_fit(tables: Tables, settings: Settings, fitted: str) -> None:
    for day in DAYS[2:4]:
        publish(tables, settings, day, apple=2)
        last = classify(tables, settings, day)
    assert last.action == "fit"


def test_a_class_that_appears_is_a_reason_once_it_has_enough_images(tables: Tables, settings: Settings, fitted: str) -> None:
    patient = with_variables(settings, ORCHARD_CLASSIFIER_GROWTH=1.0)
    publish(tables, patient, DAYS[2], kiwi=4)
    assert classify(tables, patient, "few").action == "keep"
    publish(tables, patient, DAYS[3], kiwi=1)
    decided = classify(tables, patient, "enough")
    assert (decided.action, decided.reason) == ("fit", "classes appeared: kiwi")
    assert read_classifier(tables.warehouse, reference(current(tables, patient))).classifier.classes == ("apple", "kiwi", "plum")


def test_a_class_with_few_images_is_left_out_and_told(tables: Tables, settings: Settings) -> None:
    publish(tables, settings, DAYS[0], apple=12, plum=12, kiwi=4)
    classify(tables, settings)
    (row,) = tables.rows(CLASSIFIERS)
    assert (row["classes"], row["left_out"], row["n"]) == (["apple", "plum"], [{"class": "kiwi", "rows": 4}], 28)
    assert row["held_out"] == "contents"


def test_one_class_makes_no_classifier(tables: Tables, settings: Settings) -> None:
    publish(tables, settings, DAYS[0], apple=12, kiwi=2)
    decided = classify(tables, settings)
    assert decided.action == "none"
    assert decided.reason == "a classifier needs two classes of enough labelled images, there is 1; too few: kiwi (2)"
    assert pending_work(tables, settings, CLASSIFIER) is None
    assert list(tables.rows(CLASSIFIERS)) == []


def test_a_mapping_says_what_labels_mean(tables: Tables, settings: Settings, fitted: str, tmp_path: Path) -> None:
    publish(tables, settings, DAYS[2], **{"Apple Red 1": 6, "Apple Red 2": 6, "unsorted": 9})
    (tmp_path / "classes.csv").write_text("label,class\nApple Red 1,apple\nApple Red 2,apple\n")
    meant = with_variables(settings, ORCHARD_CLASSES=str(tmp_path / "classes.csv"), ORCHARD_UNLABELLED="unsorted")
    assert "not yet judged" in str(pending_work(tables, meant, CLASSIFIER))
    decided = classify(tables, meant)
    assert decided.reason == "ORCHARD_CLASSES, ORCHARD_UNLABELLED or ORCHARD_CLASS_ROWS changed"
    found = read_classifier(tables.warehouse, reference(current(tables, meant)))
    assert found.classifier.classes == ("apple", "plum")
    assert found.class_of == {"Apple Red 1": "apple", "Apple Red 2": "apple", "apple": "apple", "plum": "plum"}
    assert found.n == 60


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name,class\na,b\n", "its first line must be `label,class`"),
        ("label,class\na,b\na,c\n", "line 3 gives the label 'a' a second class"),
        ("label,class\na\n", r"line 2 is \['a'\]: give a label and its class"),
        ("label,class\na,\n", "line 2 is"),
        (None, "the file cannot be read"),
        ("label,class\n\xff", "the file is not UTF-8"),
    ],
)
def test_a_mapping_that_cannot_be_used_fails_the_plan(
    tables: Tables, settings: Settings, tmp_path: Path, text: str | None, why: str
) -> None:
    path = tmp_path / "classes.csv"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    wrong = with_variables(settings, ORCHARD_CLASSES=str(path))
    planned = run.plan(tables, wrong, "run", CLASSIFIER)
    assert isinstance(planned, Failed)
    with pytest.raises(ConfigurationError, match=f"ORCHARD_CLASSES='{path}': {why}"):
        raise planned.error


def test_a_worse_classifier_is_kept_as_a_candidate(tables: Tables, settings: Settings, fitted: str) -> None:
    publish(tables, settings, DAYS[2], **PAIR)
    classify(tables, settings, "worse", compared=100, compared_right=80, compared_right_before=82)
    assert current(tables, settings) == fitted
    candidate = next(row["model_id"] for row in tables.rows(CLASSIFIERS) if row["model_id"] != fitted)
    told = next(row for row in tables.rows(MODEL_RUNS) if row["run_id"] == "worse")
    assert (told["action"], told["model_id"]) == ("candidate", fitted)
    assert told["reason"].startswith(f"{candidate} is not promoted: it gets 80 of 100 images right, the current model 82; ")
    assert pending_work(tables, settings, CLASSIFIER) is None
    assert promote(tables, settings, candidate)
    assert current(tables, settings) == candidate


@pytest.mark.parametrize("right", [81, 82, 90])
def test_one_that_is_hardly_worse_is_promoted(tables: Tables, settings: Settings, fitted: str, right: int) -> None:
    publish(tables, settings, DAYS[2], **PAIR)
    classify(tables, settings, "new", compared=100, compared_right=right, compared_right_before=82)
    assert current(tables, settings) != fitted


def test_a_held_classifier_is_not_refitted_until_it_is_released(tables: Tables, settings: Settings, fitted: str) -> None:
    assert promote(tables, settings, fitted[:8])
    publish(tables, settings, DAYS[2], **PAIR)
    assert classify(tables, settings, "held").action == "idle"
    assert release(tables, settings, CLASSIFIER)
    assert classify(tables, settings, "released").action == "fit"
    assert current_promotion(tables, settings.backbone.id, PCA) is None


def test_pins_are_of_a_kind(tables: Tables, settings: Settings, fitted: str) -> None:
    assert pin(tables, settings, fitted)
    assert pinned_models(tables, settings.backbone.id, CLASSIFIER) == (fitted,)
    assert pinned_models(tables, settings.backbone.id) == ()
    assert [row["kind"] for row in tables.rows(PINS)] == ["classifier"]
    assert unpin(tables, settings, fitted)
    with pytest.raises(ConfigurationError, match="no model has the id"):
        known_model(tables, settings.backbone.id, fitted, (PCA,))


def test_a_classifier_that_was_promoted_first_is_kept(tables: Tables, settings: Settings, fitted: str) -> None:
    publish(tables, settings, DAYS[2], **PAIR)
    planned = value_of(run.plan(tables, settings, "slow", CLASSIFIER))
    FakeJobs(tables, {}).run_planned(read_projection(tables.warehouse, planned.input_digest))
    assert promote(tables, settings, fitted)
    assert isinstance(run.publish(tables, planned, "slow"), Skipped)
    assert current(tables, settings) == fitted


def test_a_changed_classifier_fails_the_validation(tables: Tables, settings: Settings, fitted: str) -> None:
    publish(tables, settings, DAYS[2], **PAIR)
    planned = value_of(run.plan(tables, settings, "run", CLASSIFIER))
    projection = read_projection(tables.warehouse, planned.input_digest)
    FakeJobs(tables, {}).run_planned(projection)
    assert run.validate(tables, planned) == Done("passed")
    assert projection.fit is not None
    path = projection.fit.model.path
    row = pq.read_table(io.BytesIO(tables.warehouse.read(path)))
    at = row.schema.get_field_index("centres")
    twice = pa.array([[2 * value for value in values] for values in row["centres"].to_pylist()], row.schema.field(at).type)
    packed = io.BytesIO()
    pq.write_table(row.set_column(at, row.schema.field(at), twice), packed)
    tables.warehouse.rewrite(path, packed.getvalue())
    failed = run.validate(tables, planned)
    assert isinstance(failed, Failed)
    assert "centres: failed for 1" in str(failed.error)


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_classifier_is_taken_out_and_fitted_again(tables: Tables, settings: Settings, fitted: str, damage: str) -> None:
    verify(tables, is_deep=True)  # the first look records what no name tells
    DAMAGES[damage](tables.warehouse, reference(fitted).path)
    assert [(one.table, one.path) for one in verify(tables, is_deep=True)] == [("classifiers", reference(fitted).path)]
    assert "the classifier whose file was lost" in repair(tables, settings, is_dry=False).lost
    assert verify(tables, is_deep=True) == ()
    assert pending_work(tables, settings, CLASSIFIER) == "the current model's file was lost"
    assert classify(tables, settings, "again").action == "fit"
    assert current(tables, settings) == fitted
    assert read_classifier(tables.warehouse, reference(fitted)).n == 48


def test_a_clean_up_keeps_the_classifiers_that_a_table_names(tables: Tables, settings: Settings, fitted: str) -> None:
    publish(tables, settings, DAYS[2], **PAIR)
    planned = value_of(run.plan(tables, settings, "run", CLASSIFIER))
    FakeJobs(tables, {}).run_planned(read_projection(tables.warehouse, planned.input_digest))
    clean(tables, settings, datetime.now(UTC), timedelta(days=7))
    assert run.validate(tables, planned) == Done("passed")
    value_of(run.publish(tables, planned, "run"))
    clean(tables, settings, datetime.now(UTC), timedelta(0))
    assert {row["model_id"] for row in tables.rows(CLASSIFIERS)} == {fitted, current(tables, settings)}


def test_class_moments_are_used_where_whole_batches_are_held_out(tables: Tables, settings: Settings) -> None:
    publish(tables, settings, DAYS[0], **PAIR)
    assert planned_fit(tables, settings).class_moments == ()
    publish(tables, settings, DAYS[1], **PAIR)
    fit = planned_fit(tables, settings)
    files = {file.partition["batch_id"]: file.path for file in tables.load(CLASS_MOMENTS).files()}
    assert (fit.held_out, dict(fit.class_moments)) == ("batches", files)
    assert planned_fit(tables, with_variables(settings, ORCHARD_UNLABELLED="unsorted")).class_moments == ()
    with overwritten(tables.warehouse, files[DAYS[0]]):
        assert [batch_id for batch_id, _ in planned_fit(tables, settings).class_moments] == [DAYS[1]]


def planned_fit(tables: Tables, settings: Settings) -> ClassifierFit:
    planned = value_of(run.plan(tables, settings, "run", CLASSIFIER))
    fit = read_projection(tables.warehouse, planned.input_digest).fit
    assert fit is not None
    return fit
