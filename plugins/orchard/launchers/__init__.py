"""Launchers: one module for each target. Each turns a `JobRequest` into a stock provider operator.

docs/architecture.md ("Add a target") has the steps to add one.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from orchard.settings import Settings

if TYPE_CHECKING:
    from orchard.launchers.request import Launcher

_LAUNCHERS = {
    "local": "LocalLauncher",
    "emr_serverless": "EmrServerlessLauncher",
    "databricks": "DatabricksLauncher",
    "emr": "EmrLauncher",
}


def launcher_for(settings: Settings) -> "Launcher":
    """Return the launcher of the settings' target; ConfigurationError when no job can be submitted to it.

    The other targets' modules are not loaded: their providers would cost each parse and each task most of a second.
    """
    settings.check_target()
    module = import_module(f"orchard.launchers.{settings.jobs.target}")
    launcher: Launcher = getattr(module, _LAUNCHERS[settings.jobs.target])(settings)
    return launcher
