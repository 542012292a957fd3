"""The audit of a fitted classifier: whether it follows from the class moments in its own file, and from its plan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.audit.verdict import Findings, Verdict
from orchard_jobs.contract.jobs import ClassifierFit

Floats = NDArray[np.float64]
FINITE_CHECK = {"finite": "no value is NaN or infinite"}
PLAN_CHECK = {"plan": "the classifier is the planned one: its batch versions, labels and classes"}
CLASSIFIER_CHECKS = {
    "classes": "at least two classes, sorted, those that labels mean; n is the number of rows of the class moments",
    "covariance": "whitening turns (1 - s) W + s tr(W) / d I into the unit matrix: no entry is off by more than 1e-6",
    "centres": "centres are the classes' means about `mean`, whitened",
    "priors": "the priors sum to 1",
    "calibration": "0 <= shrinkage <= 1; temperature and max_distance are above 0",
    "held_out": "0 <= held_out_right <= held_out_rows <= n, with at least one row",
}
_TOLERANCE = 1e-6
_WHERE = "classifier"


@dataclass(frozen=True, eq=False)
class ClassifierParts:
    """What a classifier's file says, and what its class moments say.

    Attributes:
        model_id: its id.
        sources: (batch_id, manifest_digest) of the batch versions that it was fitted on.
        class_of: the class of each label that has one.
        left_out: rows of each class that had too few.
        classes: its c classes.
        mean: float64 [d].
        whitening: float64 [d, d].
        centres: float64 [c, d].
        log_priors: float64 [c].
        shrinkage: s.
        temperature: what scores are divided by.
        max_distance: the largest distance of a known row.
        held_out_rows: held-out rows that were classified.
        held_out_right: how many of them got their class.
        n: rows that it says it was fitted on.
        counted: rows that its class moments are of.
        means: float64 [c, d], the classes' means by its class moments.
        within: float64 [d, d], the covariance W within the classes by its class moments.
    """

    model_id: str
    sources: tuple[tuple[str, str], ...]
    class_of: Mapping[str, str]
    left_out: Mapping[str, int]
    classes: tuple[str, ...]
    mean: Floats
    whitening: Floats
    centres: Floats
    log_priors: Floats
    shrinkage: float
    temperature: float
    max_distance: float
    held_out_rows: int
    held_out_right: int
    n: int
    counted: int
    means: Floats
    within: Floats


def audit_classifier(parts: ClassifierParts, fit: ClassifierFit | None = None) -> Verdict:
    """Return the verdict on a classifier.

    Args:
        parts: what its file says.
        fit: the plan of its fit; None for one that was published before.
    """
    findings = Findings()
    findings.register_checks(FINITE_CHECK | (PLAN_CHECK if fit else {}))
    findings.extend("finite", _WHERE, _not_finite(parts))
    if fit:
        findings.extend("plan", _WHERE, _plan_faults(parts, fit))
    if findings.has_failed():
        findings.warn("the other checks were not made, because the finite or plan check failed")
        return findings.verdict()
    findings.register_checks(CLASSIFIER_CHECKS)
    findings.extend("classes", _WHERE, _class_faults(parts))
    _check_numbers(parts, findings)
    return findings.verdict()


def _not_finite(parts: ClassifierParts) -> Iterator[str]:
    for name, value in vars(parts).items():
        values = np.asarray(value) if isinstance(value, float | np.ndarray) else np.zeros(0)
        odd = np.flatnonzero(~np.isfinite(values))
        if odd.size:
            yield f"{name}: value {odd[0]} is {values.flat[odd[0]]}, of {odd.size}"


def _plan_faults(parts: ClassifierParts, fit: ClassifierFit) -> Iterator[str]:
    sources = tuple(sorted((version.batch_id, version.manifest_digest) for version in fit.versions))
    planned = {"model_id": fit.model.model_id, "sources": sources, "class_of": dict(fit.class_of), "left_out": dict(fit.left_out)}
    for name, value in planned.items():
        if getattr(parts, name) != value:
            yield f"{name} is {getattr(parts, name)}, the plan has {value}"


def _class_faults(parts: ClassifierParts) -> Iterator[str]:
    meant = tuple(sorted(set(parts.class_of.values())))
    if len(meant) < 2 or parts.classes != meant:
        yield f"the classes are {parts.classes}, labels mean {meant}"
    if parts.n != parts.counted:
        yield f"n is {parts.n}, the class moments are of {parts.counted} rows"


def _check_numbers(parts: ClassifierParts, findings: Findings) -> None:
    s, unit = parts.shrinkage, np.eye(parts.mean.size)
    covariance = (1 - s) * parts.within + s * np.trace(parts.within) / parts.mean.size * unit
    _check_near("covariance", parts.whitening @ covariance @ parts.whitening.T, unit, findings)
    _check_near("centres", parts.centres, (parts.means - parts.mean) @ parts.whitening.T, findings)
    _check_near("priors", np.exp(parts.log_priors).sum(), np.ones(()), findings)
    if not (0 <= s <= 1 and parts.temperature > 0 and parts.max_distance > 0):
        found = f"shrinkage {s}, temperature {parts.temperature}, max_distance {parts.max_distance}"
        findings.add("calibration", _WHERE, found)
    if not 0 <= parts.held_out_right <= parts.held_out_rows <= parts.n or parts.held_out_rows == 0:
        findings.add("held_out", _WHERE, f"{parts.held_out_right} right of {parts.held_out_rows} held-out rows, of {parts.n}")


def _check_near(check: str, found: Floats, expected: Floats, findings: Findings) -> None:
    """Add a fault where shapes differ, or a value is off by more than the tolerance, relative to the largest above 1."""
    if found.shape != expected.shape:
        findings.add(check, _WHERE, f"the shape is {found.shape}, not {expected.shape}")
        return
    off = float(np.abs(found - expected).max())
    if off > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        findings.add(check, _WHERE, f"off by up to {off:.3g}")
