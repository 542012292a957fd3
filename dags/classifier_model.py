"""### classifier_model: one classifier that knows the labelled images of every published batch

Started by each `features` event (of a publish, or of `reconcile_uploads`), or by hand; one run at a time.
When several are queued, all but the last are skipped.

| task | what it does |
|---|---|
| plan_model | counts the labelled images and decides: nothing to do, predict what lacks rows, or fit again |
| classify | Spark: published features; chooses the shrinkage on held-out rows, fits, calibrates; then predicts |
| validate | audits the classifier against its class moments and its plan, and the predictions; fails closed |
| publish | the classifier's row, the predictions of all batches in one commit, then the promotion |

A new classifier is fitted when there is none, when classes appeared, or when the labelled images grew by
`ORCHARD_CLASSIFIER_GROWTH`. It is also fitted when what labels mean changed (`ORCHARD_CLASSES`, `ORCHARD_UNLABELLED`,
`ORCHARD_CLASS_ROWS`), or when a batch that it was fitted on is no longer published. While the current one is held
(`orchard models promote`, `release`), none is fitted.

A new classifier is promoted unless it is worse than the current one on images that neither was fitted on, by more than
`ORCHARD_PROMOTION_MARGIN`. Without two classes of enough labelled images there is none, and the run is skipped.

**Rerun**: whenever you like; a run that finds nothing to do is skipped in seconds.
"""

from airflow.sdk import DAG, FixedKeyMapper, PartitionedAssetTimetable
from orchard.models.kinds import CLASSIFIER
from orchard.workflow.assets import FEATURES
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.flow import model_flow

with DAG(
    dag_id="classifier_model",
    schedule=PartitionedAssetTimetable(assets=FEATURES, default_partition_mapper=FixedKeyMapper("current")),
    max_active_runs=1,
    doc_md=__doc__,
    **dag_arguments(),
):
    model_flow(settings(), CLASSIFIER)
