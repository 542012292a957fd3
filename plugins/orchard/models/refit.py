"""The plan of a run of a model's DAG: what there is to do, and the kind's own decision where a refit needs thought.

`registry` records what a user chose (hold, pin); `retention` removes expired rows; `publish` makes a plan's results visible.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from orchard.models.classifier_refit import decide_classifier
from orchard.models.kinds import CLASSIFIER, KINDS, PCA, Kind
from orchard.models.model_plan import ModelPlan, keep_current
from orchard.models.pca_refit import decide_pca
from orchard.models.retention import remove_rows
from orchard.models.state import ModelState, model_state
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

_DECIDE: Mapping[Kind, Callable[[Tables, Settings, ModelState], ModelPlan]] = {
    PCA: decide_pca,
    CLASSIFIER: decide_classifier,
}


def pending_work(tables: Tables, settings: Settings, kind: Kind = PCA) -> str | None:
    """Return what a kind's DAG has to do, in words, or None when it has nothing to do. Reads no moments."""
    return model_state(tables, settings, kind).work


def pending_works(tables: Tables, settings: Settings) -> dict[str, str]:
    """Return by the id of each model's DAG what it has to do; one that has nothing to do is left out."""
    found = {kind.dag_id: pending_work(tables, settings, kind) for kind in KINDS}
    return {dag_id: work for dag_id, work in found.items() if work is not None}


def plan_model(tables: Tables, settings: Settings, kind: Kind = PCA) -> ModelPlan:
    """Decide what a kind's DAG does now, and freeze its Spark job's work.

    - Nothing is missing: the run is idle.
    - The current or a pinned model lacks batches, or has rows of an older version. They are projected if the current one is held
      or good enough.
    - There is no model, or a refit is worth it: a new model is fitted on all batches.

    Rows of retired batches that were published during the retirement are removed first.

    Returns:
        The plan; its projection plan lies in the warehouse when it is returned.
    """
    found = model_state(tables, settings, kind)
    remove_rows(tables, found.retired, kind)
    found = replace(found, retired=[])
    if found.work is None:
        count = len(found.versions)
        reason = f"all {count} published batches are covered" if count else "no batch is published yet"
        return ModelPlan("idle", reason, found.considered)
    if found.is_judged and found.promotion is not None:
        why = "is held" if found.promotion.is_held else "was judged with these batches before"
        return keep_current(tables, found, f"the current model {why}")
    return _DECIDE[kind](tables, settings, found)
