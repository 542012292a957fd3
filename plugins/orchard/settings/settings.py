"""Everything that differs between machines: environment variables `ORCHARD_*`, read and checked in one place.

Reads no Airflow connection and no Variable, so a DAG file may load it at import.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import SequenceMatcher
from typing import Any

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.errors import ConfigurationError

from orchard.settings import parsers
from orchard.settings.groups import (
    BackboneSettings,
    ClassifierSettings,
    ImageSettings,
    LandingZoneSettings,
    ModelSettings,
    RetentionSettings,
    RunSettings,
)
from orchard.settings.targets import (
    DatabricksSettings,
    EmrServerlessSettings,
    EmrSettings,
    JobSettings,
    LocalSettings,
    TargetSettings,
)
from orchard.settings.variables import SettingsGroup, variable

Row = tuple[str, str, str]
# A plural or a singular, a letter, or two that changed places.
_MOST_TYPOS = 2


def _group(kind: type[SettingsGroup]) -> Any:
    return field(metadata={"group": kind})


@dataclass(frozen=True)
class Settings(SettingsGroup):
    """The settings: a group for each topic, and what no topic owns; each target's group has the target's name."""

    title = "Storage"
    warehouse: str = variable("WAREHOUSE", "", "URI of the warehouse: `file:///...` or `s3://...` (required)", parsers.warehouse)
    aws_conn_id: str = variable("AWS_CONN_ID", "aws_default", "Airflow connection for S3")
    landing_zone: LandingZoneSettings = _group(LandingZoneSettings)
    images: ImageSettings = _group(ImageSettings)
    backbone: Backbone = _group(BackboneSettings)
    model: ModelSettings = _group(ModelSettings)
    classifier: ClassifierSettings = _group(ClassifierSettings)
    jobs: JobSettings = _group(JobSettings)
    local: LocalSettings = _group(LocalSettings)
    emr_serverless: EmrServerlessSettings = _group(EmrServerlessSettings)
    emr: EmrSettings = _group(EmrSettings)
    databricks: DatabricksSettings = _group(DatabricksSettings)
    runs: RunSettings = _group(RunSettings)
    retention: RetentionSettings = _group(RetentionSettings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings of an environment (the process's by default).

        Raises:
            ConfigurationError: a value is missing or wrong; it names the variable, the value and what is wanted.
        """
        source = os.environ if environment is None else environment
        _refuse_misspelt(source)
        values = cls.read(source) | {name: kind(**kind.read(source)) for name, kind in _groups().items()}
        return cls(**values | {"backbone": values["backbone"].backbone()})

    def check_target(self) -> None:
        """Raise ConfigurationError when no job can be submitted to the target with these settings."""
        target: TargetSettings = getattr(self, self.jobs.target)
        target.check(self.jobs, self.warehouse, self.backbone)


def _groups() -> dict[str, type[SettingsGroup]]:
    """Return the kind of each group, by its attribute of the settings."""
    return {one.name: one.metadata["group"] for one in fields(Settings) if "group" in one.metadata}


def describe_groups() -> list[tuple[str, list[Row]]]:
    """Return each group's title, and (variable, default, meaning) of each of its settings."""
    kinds: list[type[SettingsGroup]] = [Settings, *_groups().values()]
    return [(kind.title, [(one.name, one.default, one.meaning) for one in kind.variables().values()]) for kind in kinds]


def describe() -> list[Row]:
    """Return (variable, default, meaning) of every setting."""
    return [row for _, rows in describe_groups() for row in rows]


def _refuse_misspelt(source: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a variable whose name is a misspelt setting: it would have no effect.

    A name that is farther from each setting's, such as ORCHARD_UPLOADS_QUEUE_ARN, is left alone. The value may be a secret.
    """
    names = [name for name, _, _ in describe()]
    given = sorted(name for name, value in source.items() if value and name.startswith("ORCHARD_") and name not in names)
    for name in given:
        meant = min(names, key=lambda known: _typos(name, known))
        if _typos(name, meant) <= _MOST_TYPOS:
            raise ConfigurationError(f"unknown setting {name}; did you mean {meant}? Rename or unset it")


def _typos(given: str, meant: str) -> int:
    """Return how many letters a name has too many, too few or wrong; two in the wrong order count twice."""
    matcher = SequenceMatcher(None, given, meant, autojunk=False)
    return sum(max(i2 - i1, j2 - j1) for what, i1, i2, j1, j2 in matcher.get_opcodes() if what != "equal")
