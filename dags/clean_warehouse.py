"""### clean_warehouse: removes the files that nothing needs any more, and looks for damaged ones

Runs by the clock (`ORCHARD_CLEAN_SCHEDULE`, each week; `none`: only by hand). The same as `orchard clean --yes` and
`orchard verify --deep`.

| task | what it does |
|---|---|
| clean_warehouse | removes staged leftovers, replaced files, documents of finished work: older than `ORCHARD_RETENTION_DAYS` |
| verify_warehouse | reads every file that a table names; fails when one is lost or damaged, and names it |
| refresh_view | builds the view of the pages under Browse > Orchard anew, as `orchard pages` does |

What a table names, what a current or half-way batch version needs, and what something young names stays. A report goes before
the files that it names; they follow one retention later. Skipped when there is nothing to remove.

**Rerun**: whenever you like, even while another run is active.
"""

from airflow.sdk import DAG
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.tasks.maintenance import clean_warehouse, rebuild_view, verify_warehouse

with DAG(
    dag_id="clean_warehouse",
    schedule=settings().runs.clean_schedule,
    max_active_runs=1,
    doc_md=__doc__,
    **dag_arguments(),
):
    clean_warehouse()
    verify_warehouse()
    rebuild_view()
