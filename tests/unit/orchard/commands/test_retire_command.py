"""retire: lists what goes, and takes it out only when it is told yes."""

import json
from dataclasses import replace

import pytest
from orchard.cli import main
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import FEATURES
from support.changed_settings import switch_backbone
from support.faked_flow import run_batch

DAY = "2026-01-01"


def test_an_old_backbone_goes_only_by_yes(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    old = settings.backbone.id
    run_batch(tables, settings, DAY, {f"images/{DAY}/apple/{n}.jpg": bytes([n]) for n in range(5)})
    assert main(["retire", old]) == 2
    assert "is the current backbone" in capsys.readouterr().err
    current = replace(backbone_named("efficientnet_lite0", "tensorflow"), dimension=8)
    switch_backbone(monkeypatch, current)
    assert main(["retire", old]) == 0
    out = capsys.readouterr().out
    assert "1 batches" in out
    assert "5 of features" in out
    assert len(list(tables.rows(FEATURES))) == 5
    assert main(["retire", old, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_retired"]
    assert list(tables.rows(FEATURES)) == []
    assert main(["retire", old]) == 2
    assert "no table has rows of backbone" in capsys.readouterr().err
