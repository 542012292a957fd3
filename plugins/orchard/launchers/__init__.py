"""Launchers: one module a target, each of which turns a `JobRequest` into a stock provider operator.

To add a target, add its module here, its name to `_LAUNCHERS`, and what it needs to `orchard.settings`.
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
    """Return the launcher of the settings' target; the only branch on it. ConfigurationError when a setting of it is missing.

    The other targets' modules are not loaded: their providers would cost each parse and each task most of a second.
    """
    settings.check_target()
    module = import_module(f"orchard.launchers.{settings.target}")
    launcher: Launcher = getattr(module, _LAUNCHERS[settings.target])(settings)
    return launcher
