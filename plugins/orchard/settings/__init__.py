"""Everything that differs between machines: the environment variables `ORCHARD_*`."""

from orchard.settings.groups import LandingZoneSettings, RunSettings
from orchard.settings.settings import Settings, describe, describe_groups

__all__ = ["LandingZoneSettings", "RunSettings", "Settings", "describe", "describe_groups"]
