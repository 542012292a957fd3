"""### image_batches_on_arrival: uploads that were announced become published CNN features

The flow of `image_batches`, started by events of the asset `uploads` instead of the clock. One run an event; the partition
key is the batch. The events come from `image_arrivals` (S3's messages) and from `reconcile_uploads` (what messages missed).

| task | what it does |
|---|---|
| wait_for_uploads | deferred until the newest object is older than the quiet period; skips if a later run will list the batch |
| plan_batch | lists the whole batch, compares it with what is published, freezes the difference as a manifest; skips if none |
| featurize | Spark: images through the backbone, once each; bad images are set aside with a reason |
| reduce | Spark: those features x the current PCA model; skipped while there is no model |
| validate | audits every staged file with another reader; fails closed |
| publish | Delta commits, `runs` last; then the asset event `features` |
| record_lineage | an OpenLineage event with counts and versions |
| refresh_view | lets the pages under Browse > Orchard show the batch, also one that was refused |

**Many events, little work**: of the runs of one batch one works, one waits for its turn, and the others are skipped in seconds.
An upload during a run leads to a later run that sees it.

**Rerun**: start or clear it whenever you like, by hand with the batch as the partition key. It cannot be backfilled:
`image_batches` can, with the same result.

**Settings**: the environment variables `ORCHARD_*`; docs/reference/settings.md lists them.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable
from orchard.workflow.assets import UPLOADS
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.flow import batch_flow

with DAG(
    dag_id="image_batches_on_arrival",
    schedule=PartitionedAssetTimetable(assets=UPLOADS),
    max_active_runs=settings().runs.max_active,
    doc_md=__doc__,
    **dag_arguments(),
):
    batch_flow(settings(), is_announced=True)
