"""The audit of a classifier: a good one passes, and each wrong value is found by its own check."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from orchard_jobs.audit.classifier_checks import CLASSIFIER_CHECKS, FINITE_CHECK, PLAN_CHECK, ClassifierParts, audit_classifier
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.contract.jobs import BatchVersion, ClassifierFit
from orchard_jobs.contract.manifest import ModelReference
from support.labelled_samples import labelled

DATA = labelled({"gala": 40, "fuji": 30, "plum": 50, "kiwi": 3})
CLASS_OF = {"gala": "apple", "fuji": "apple", "plum": "plum"}
CLASSES = classes_of(DATA.moments, CLASS_OF)
OWN = fit(CLASSES, 0.1)
PLAN = ClassifierFit(
    model=ModelReference("lda-1", "classifiers/lda-1/model.parquet", 2),
    versions=(BatchVersion("2026-01-05", "a" * 64, 1, ()),),
    class_of=tuple(sorted(CLASS_OF.items())),
    left_out=(("kiwi", 3),),
    unlabelled=(),
    held_out="contents",
    rows=123,
    current=None,
)
GOOD = ClassifierParts(
    model_id="lda-1",
    sources=(("2026-01-05", "a" * 64),),
    class_of=CLASS_OF,
    left_out={"kiwi": 3},
    classes=OWN.classes,
    mean=OWN.mean,
    whitening=OWN.whitening,
    centres=OWN.centres,
    log_priors=OWN.log_priors,
    shrinkage=0.1,
    temperature=1.5,
    max_distance=4.0,
    held_out_rows=120,
    held_out_right=90,
    n=123,
    counted=123,
    means=CLASSES.means,
    within=CLASSES.scatter / CLASSES.n,
)


def failed(parts: ClassifierParts) -> list[str]:
    return [failure.check for failure in audit_classifier(parts, PLAN).failures]


def test_a_good_classifier_passes_every_check() -> None:
    verdict = audit_classifier(GOOD, PLAN)
    assert verdict.has_passed
    assert set(verdict.passed) == set(FINITE_CHECK | PLAN_CHECK | CLASSIFIER_CHECKS)


def test_one_that_was_published_before_has_no_plan() -> None:
    assert set(audit_classifier(GOOD).passed) == set(FINITE_CHECK | CLASSIFIER_CHECKS)


def nudged(name: str, amount: float) -> Callable[[ClassifierParts], ClassifierParts]:
    def change(parts: ClassifierParts) -> ClassifierParts:
        values = np.array(getattr(parts, name))
        values.flat[0] += amount
        changed: dict[str, Any] = {name: values}
        return replace(parts, **changed)

    return change


def put(**values: Any) -> Callable[[ClassifierParts], ClassifierParts]:
    return lambda parts: replace(parts, **values)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (nudged("mean", np.nan), "finite"),
        (nudged("within", np.inf), "finite"),
        (put(temperature=float("nan")), "finite"),
        (put(max_distance=float("inf")), "finite"),
        (put(model_id="lda-2"), "plan"),
        (put(sources=(("2026-01-05", "b" * 64),)), "plan"),
        (put(class_of=CLASS_OF | {"kiwi": "kiwi"}), "plan"),
        (put(left_out={}), "plan"),
        (put(classes=("plum", "apple")), "classes"),
        (put(counted=122), "classes"),
        (nudged("whitening", 1e-3), "covariance"),
        (put(shrinkage=0.2), "covariance"),
        (nudged("centres", 1e-3), "centres"),
        (put(centres=OWN.centres[:1]), "centres"),
        (nudged("log_priors", 1e-3), "priors"),
        (put(temperature=0.0), "calibration"),
        (put(max_distance=-1.0), "calibration"),
        (put(held_out_rows=0, held_out_right=0), "held_out"),
        (put(held_out_right=121), "held_out"),
        (put(held_out_rows=124), "held_out"),
    ],
)
def test_a_wrong_value_is_found(change: Callable[[ClassifierParts], ClassifierParts], check: str) -> None:
    assert check in failed(change(GOOD))


def test_a_check_that_failed_first_is_told_in_words() -> None:
    (failure,) = audit_classifier(replace(GOOD, held_out_right=121), PLAN).failures
    assert failure.to_text().splitlines()[1].strip() == "121 right of 120 held-out rows, of 123"
