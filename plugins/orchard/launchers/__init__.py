"""Launchers: one module a target, each of which turns a `JobRequest` into a stock provider operator."""

from importlib import import_module

from orchard.launchers.request import JobRequest, Launcher
from orchard.settings import Settings

__all__ = ["JobRequest", "Launcher", "launcher_for"]

_LAUNCHERS = {
    "local": "LocalLauncher",
    "emr_serverless": "EmrServerlessLauncher",
    "databricks": "DatabricksLauncher",
    "emr": "EmrLauncher",
}


def launcher_for(settings: Settings) -> Launcher:
    """Return the launcher of the settings' target; the only branch on it. ConfigurationError when a setting of it is missing.

    The other targets' modules are not loaded: their providers would cost each parse and each task most of a second.
    """
    settings.check_target()
    module = import_module(f"orchard.launchers.{settings.target}")
    launcher: Launcher = getattr(module, _LAUNCHERS[settings.target])(settings)
    return launcher
