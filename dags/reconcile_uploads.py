"""### reconcile_uploads: uploads that no event announced

Runs by the clock (`ORCHARD_RECONCILE_SCHEDULE`, each hour; `none`: only by hand), so a lost event costs an hour, never an image.

| task | what it does |
|---|---|
| find_differences | lists the landing zone; emits an event of `uploads` for each batch that differs from what is published |
| wake_model | starts `pca_model` and `classifier_model` by an event of `features` if one of them has something to do |

Each task is skipped when it finds nothing to do. Objects under no batch key are counted in the log of `find_differences`.
A batch that is being worked on differs, too: its additional run waits, finds nothing to do and is skipped.

**Rerun**: whenever you like.
"""

from airflow.sdk import DAG
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.tasks.uploads import find_differences, wake_model

with DAG(
    dag_id="reconcile_uploads",
    schedule=settings().runs.reconcile_schedule,
    max_active_runs=1,
    doc_md=__doc__,
    **dag_arguments(),
):
    find_differences()
    wake_model()
