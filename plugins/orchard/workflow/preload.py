"""Imports what every task imports, for a fork server (Airflow's `[core] mp_forkserver_preload`): each task that it forks has it.

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
