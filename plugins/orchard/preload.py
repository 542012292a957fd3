"""The module that Airflow's `[core] mp_forkserver_preload` names; `workflow.preload` does the work."""

from orchard.workflow import preload

__all__ = ["preload"]
