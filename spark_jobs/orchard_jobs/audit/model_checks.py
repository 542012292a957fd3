"""The audit of a fitted model: whether it is an orthonormal, ordered basis with a true spectrum."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.audit.verdict import Findings, Verdict

Floats = NDArray[np.float64]
MODEL_CHECKS = {
    "shapes": "1 <= k <= min(n - 1, d); mean is [d], components [k, d], explained_variance and its ratio [k]",
    "finite": "no value is NaN or infinite",
    "orthonormal": "components are orthonormal: no entry of V V' - I is above 1e-9",
    "signs": "the largest loading of a component is positive, of equal ones the first",
    "ordered": "explained_variance falls from one component to the next",
    "non_negative": "no explained_variance and no ratio is below zero",
    "ratio_sum": "the ratios sum to at most 1",
}
_TOLERANCE = 1e-9
_WHERE = "model"


def audit_model(mean: Floats, components: Floats, explained_variance: Floats, ratio: Floats, n: int) -> Verdict:
    """Return the verdict on a model.

    Args:
        mean: float64 [d].
        components: float64 [k, d].
        explained_variance: float64 [k].
        ratio: float64 [k], explained_variance over the whole variance.
        n: rows that it was fitted on.
    """
    findings = Findings()
    findings.register_checks({name: MODEL_CHECKS[name] for name in ("shapes", "finite")})
    findings.extend("shapes", _WHERE, _shape_faults(mean, components, explained_variance, ratio, n))
    parts = {"mean": mean, "components": components, "explained_variance": explained_variance, "ratio": ratio}
    for name, values in parts.items():
        findings.extend("finite", _WHERE, (f"{name}: value {i} is {values.flat[i]}" for i in _where(~np.isfinite(values))))
    if findings.has_failed():
        findings.warn("the other checks were not made, because the shapes or finite check failed")
        return findings.verdict()
    findings.register_checks(MODEL_CHECKS)
    _check_components(components, findings)
    _check_spectrum(explained_variance, ratio, findings)
    return findings.verdict()


def _shape_faults(mean: Floats, components: Floats, variance: Floats, ratio: Floats, n: int) -> Iterator[str]:
    if components.ndim != 2 or mean.shape != components.shape[1:]:
        yield f"mean is {mean.shape}, components are {components.shape}"
        return
    k, dimension = components.shape
    if not 1 <= k <= min(n - 1, dimension):
        yield f"{k} components of {n} rows with {dimension} values"
    if not variance.shape == ratio.shape == (k,):
        yield f"explained_variance is {variance.shape}, its ratio {ratio.shape}, of {k} components"


def _check_components(components: Floats, findings: Findings) -> None:
    k = len(components)
    apart = np.abs(components @ components.T - np.eye(k)).max(axis=1)
    findings.extend("orthonormal", _WHERE, (f"component {i} is off by {apart[i]:.3g}" for i in _where(apart > _TOLERANCE)))
    largest = components[np.arange(k), np.abs(components).argmax(axis=1)]
    findings.extend("signs", _WHERE, (f"component {i}: its largest loading is {largest[i]:.3g}" for i in _where(largest < 0)))


def _check_spectrum(variance: Floats, ratio: Floats, findings: Findings) -> None:
    rises = _where(np.diff(variance) > 0)
    findings.extend("ordered", _WHERE, (f"component {i + 1} explains {variance[i + 1]}, {i} {variance[i]}" for i in rises))
    for name, values in (("explained_variance", variance), ("ratio", ratio)):
        findings.extend("non_negative", _WHERE, (f"{name} {i} is {values[i]}" for i in _where(values < 0)))
    if ratio.sum() > 1 + _TOLERANCE:
        findings.add("ratio_sum", _WHERE, f"the ratios sum to {ratio.sum()}")


def _where(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(mask)
