"""Settings that differ from others in some variables, and backbones that no variable can name."""

from dataclasses import replace
from typing import Any

import pytest
from orchard.settings import Settings
from orchard.settings.groups import BackboneSettings
from orchard.settings.variables import SettingsGroup
from orchard_jobs.contract.backbones import Backbone


def with_variables(settings: Settings, **variables: object) -> Settings:
    """Return settings with other values of some variables, such as `ORCHARD_REFIT_GAIN=0.0`.

    A text is read as that of the environment. Any other value stands for itself, also one that no text gives.
    A backbone is changed as a whole: `replace(settings, backbone=...)`.
    """
    groups: dict[str, Any] = {name: one for name, one in vars(settings).items() if isinstance(one, SettingsGroup)}
    own = _values(settings, variables)
    own |= {name: replace(group, **_values(group, variables)) for name, group in groups.items()}
    assert not variables, f"no group of the settings has {list(variables)}"
    return replace(settings, **own)


def _values(group: SettingsGroup, variables: dict[str, object]) -> dict[str, Any]:
    """Take those of some variables that belong to a group, and return the value of each attribute."""
    found = {attribute: one for attribute, one in group.variables().items() if one.name in variables}
    given = {attribute: variables.pop(one.name) for attribute, one in found.items()}
    return {name: found[name].parse(value) if isinstance(value, str) else value for name, value in given.items()}


def switch_backbone(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    """Let every environment that is read from now on name a backbone."""
    monkeypatch.setattr(BackboneSettings, "backbone", lambda self: backbone)


def is_broke(settings: Settings) -> bool:
    """Tell whether settings allow no image to be computed."""
    return settings.jobs.target != "local" and settings.jobs.max_executor_hours == 0
