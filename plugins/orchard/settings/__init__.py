"""Everything that differs between machines: the environment variables `ORCHARD_*`."""

from orchard.settings.settings import TARGETS, Settings, describe

__all__ = ["TARGETS", "Settings", "describe"]
