"""Launchers: one module a target, each of which turns a `JobRequest` into a stock provider operator."""

from collections.abc import Callable

from orchard.launchers.databricks import DatabricksLauncher
from orchard.launchers.emr import EmrLauncher
from orchard.launchers.emr_serverless import EmrServerlessLauncher
from orchard.launchers.local import LocalLauncher
from orchard.launchers.request import JobRequest, Launcher
from orchard.settings import Settings

__all__ = ["JobRequest", "Launcher", "launcher_for"]


def launcher_for(settings: Settings) -> Launcher:
    """Return the launcher of the settings' target; the only branch on it. ConfigurationError when a setting of it is missing."""
    settings.check_target()
    launchers: dict[str, Callable[[Settings], Launcher]] = {
        "local": LocalLauncher,
        "emr_serverless": EmrServerlessLauncher,
        "databricks": DatabricksLauncher,
        "emr": EmrLauncher,
    }
    return launchers[settings.target](settings)
