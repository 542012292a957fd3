"""Import what every task imports, in Airflow's fork server (`[core] mp_forkserver_preload`), so that the tasks it forks need not.

No setting is read here: each task reads its own.
"""

from importlib import import_module

MODULES = (
    "airflow.executors.local_executor",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.dagbag",
    # Each task loads the plugins of all providers.
    "airflow.providers.databricks.plugins.databricks_workflow",
    "airflow.providers.openlineage.plugins.openlineage",
    "pyarrow.dataset",
    "orchard.workflow.flow",
    "orchard.launchers.local",
)

for name in MODULES:
    import_module(name)
