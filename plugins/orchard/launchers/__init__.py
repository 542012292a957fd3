"""Launchers: one module a target, each of which turns a `JobRequest` into a stock provider operator."""

from orchard_jobs.errors import ConfigurationError

from orchard.launchers.local import LocalLauncher
from orchard.launchers.request import JobRequest, Launcher
from orchard.settings import Settings

__all__ = ["JobRequest", "Launcher", "launcher_for"]


def launcher_for(settings: Settings) -> Launcher:
    """Return the launcher of the settings' target; the only branch on it. ConfigurationError for an unknown one."""
    if settings.target == "local":
        return LocalLauncher(settings)
    raise ConfigurationError(f"ORCHARD_TARGET={settings.target!r}: only `local` is there yet")
