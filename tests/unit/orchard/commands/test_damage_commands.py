"""verify and repair on the command line: their words, their JSON and their exit status."""

import json

import pytest
from orchard.cli import main
from orchard.maintenance.verify import verify, verify_on_schedule
from orchard.outcomes import Done, Failed
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, TABLES
from support.damage import cut, file_of
from support.published_batches import DAYS, publish_days

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def path(tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A features file of the first of two batches."""
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    publish_days(tables, settings, *DAYS[:2])
    return file_of(tables, FEATURES, batch_id=DAYS[0]).path


@pytest.mark.parametrize("option", [[], ["--deep"]])
def test_a_sound_warehouse_is_said_to_be_one(path: str, option: list[str], capsys: Captured) -> None:
    assert main(["verify", *option]) == 0
    out = capsys.readouterr().out
    assert out.startswith(("no file is lost or cut", "nothing is lost or damaged"))
    assert f"(looked at {len(TABLES)} tables, " in out


def test_a_warehouse_without_tables_is_said_to_be_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    assert main(["verify", "--deep"]) == 1
    assert "holds no table" in capsys.readouterr().out


def test_damage_is_listed_with_its_batch_and_the_remedy(tables: Tables, path: str, capsys: Captured) -> None:
    cut(tables.warehouse, path)
    assert main(["verify"]) == 1
    out = capsys.readouterr().out
    assert [word for word in ("features", DAYS[0], path, "bytes, not", "orchard repair --dry-run") if word not in out] == []


def test_damage_is_told_as_json(tables: Tables, path: str, capsys: Captured) -> None:
    cut(tables.warehouse, path)
    assert main(["verify", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["damage"]
    assert (found["table"], found["batch_id"], found["path"]) == ("features", DAYS[0], path)


def test_a_repair_says_what_has_to_run_again(tables: Tables, path: str, capsys: Captured) -> None:
    cut(tables.warehouse, path)
    assert main(["repair", "--dry-run"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert main(["repair"]) == 0
    out = capsys.readouterr().out
    assert f"batches to run again: {DAYS[0]}" in out
    assert "airflow dags trigger reconcile_uploads" in out
    assert verify(tables, is_deep=True) == ()


def test_a_repair_of_nothing_says_so_as_json(path: str, capsys: Captured) -> None:
    assert main(["repair", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"mended": [], "lost": [], "batches": [], "is_dry": False}


def test_the_weekly_look_fails_and_names_the_file(tables: Tables, path: str) -> None:
    assert verify_on_schedule(tables) == Done(len(TABLES))
    cut(tables.warehouse, path)
    found = verify_on_schedule(tables)
    assert isinstance(found, Failed)
    assert path in str(found.error)
