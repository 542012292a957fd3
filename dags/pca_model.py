"""### pca_model: one PCA model that covers every published batch

Started by each `features` event (of a publish, or of `reconcile_uploads`), or by hand; one run at a time.
When several are queued, all but the last are skipped.

| task | what it does |
|---|---|
| plan_model | merges the moments of all published batches and decides: nothing to do; project what a model lacks; or fit again |
| project | Spark: published features x the current and each pinned model, no image and no backbone |
| validate | audits the models (orthonormal, ordered) and their rows; fails closed |
| publish | one Delta commit for all models and batches, then the promotion |
| refresh_view | lets the page of the models under Browse > Orchard show them |

A new model is fitted when there is none, when `ORCHARD_COMPONENTS` changed, or when a refit would gain more than
`ORCHARD_REFIT_GAIN` of the merged variance. While the current model is held (`orchard models promote`, `release`), none is
fitted. The next run takes batches that are published meanwhile.

**Rerun**: whenever you like; a run that finds nothing missing is skipped in seconds.
"""

from airflow.sdk import DAG, FixedKeyMapper, PartitionedAssetTimetable
from orchard.models.kinds import PCA
from orchard.workflow.assets import FEATURES
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.flow import model_flow

with DAG(
    dag_id="pca_model",
    schedule=PartitionedAssetTimetable(assets=FEATURES, default_partition_mapper=FixedKeyMapper("current")),
    max_active_runs=1,
    doc_md=__doc__,
    **dag_arguments(),
):
    model_flow(settings(), PCA)
