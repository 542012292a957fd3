"""### image_batches: images that landed in S3 become published CNN features

One run a partition: the images under `s3://<landing>/<batch>/`, where the partition key is the batch (a day by default).

| task | what it does |
|---|---|
| wait_for_uploads | deferred until the newest object is older than the quiet period; an old batch is decided at once |
| plan_batch | lists the whole batch, compares it with what is published, freezes the difference as a manifest; skips if none |
| featurize | Spark: images through the backbone, once each; bad images are set aside with a reason |
| reduce | Spark: those features x the current PCA model; skipped while there is no model |
| validate | audits every staged file with another reader; fails closed |
| publish | Delta commits, `runs` last; then the asset event `features` |
| record_lineage | an OpenLineage event with counts and versions |
| refresh_view | lets the pages under Browse > Orchard show the batch, also one that was refused |

A run waits while another run of its batch, of this DAG or of `image_batches_on_arrival`, is at work.

**Inputs**: objects `<batch>/[...]/<label>/<file>`. **Outputs**: the tables features, quarantine, moments, pca_features, runs.

**Rerun**: start or clear it whenever you like. Unchanged batches are skipped in seconds, finished jobs are not run again, and
a run that was cut off rolls forward. **By hand**: give the batch as the partition key. **Past days**: `airflow backfill create`.

**Settings**: the environment variables `ORCHARD_*`; docs/reference/settings.md lists them.
"""

from airflow.sdk import DAG
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.flow import batch_flow
from orchard.workflow.timetables import FIRST_DAY, batch_timetable, last_scheduled_day

with DAG(
    dag_id="image_batches",
    schedule=batch_timetable(settings()),
    start_date=FIRST_DAY,
    end_date=last_scheduled_day(settings()),
    max_active_runs=settings().runs.max_active,
    doc_md=__doc__,
    **dag_arguments(),
):
    batch_flow(settings(), is_announced=False)
