"""A warehouse, its tables and settings with a small backbone, so that a fit takes milliseconds."""

from dataclasses import replace
from pathlib import Path

import pytest
from orchard.settings import Settings
from orchard.tables import Tables
from orchard_jobs.contract.backbones import Backbone, backbone_named

DIMENSION = 8


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    small = replace(backbone_named("efficientnet_lite0"), dimension=DIMENSION)
    monkeypatch.setattr(Settings, "backbone", property(lambda self: small))
    return Settings.from_environment({"ORCHARD_WAREHOUSE": f"{tmp_path}/warehouse", "ORCHARD_COMPONENTS": "3"})


@pytest.fixture
def backbone(settings: Settings) -> Backbone:
    return settings.backbone


@pytest.fixture
def tables(settings: Settings) -> Tables:
    tables = Tables.at(settings.warehouse)
    tables.create_all()
    return tables
