"""The command line: found commands, exit statuses, one line an error, and what each command prints."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orchard
import pytest
from orchard.cli import find_commands, main
from orchard.commands.console import format_bytes, format_table
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.errors import JobError
from support.fake_jobs import BROKEN
from support.faked_flow import run_batch
from support.warehouse_files import age, stored

DAY = "2026-01-01"
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    monkeypatch.setenv("ORCHARD_COMPONENTS", "3")


def bucket_of(day: str, salt: str = "") -> dict[str, bytes]:
    images = {f"images/{day}/apple/{n}.jpg": f"{day}{n}{salt}".encode() for n in range(6)}
    return images | {f"images/{day}/apple/broken.jpg": BROKEN}


def test_every_command_is_found_and_has_help(capsys: Out) -> None:
    names = [command.NAME for command in find_commands()]
    assert names == sorted(names)
    assert {"clean", "embed", "export", "status"} <= set(names)
    for name in names:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert "--json" in capsys.readouterr().out or name == "models"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["clean", "--older-than", "x"],
        ["clean", "--older-than", "1e9"],
        ["clean", "--yes", "--dry-run"],
        ["export"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: Out) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: orchard" in capsys.readouterr().err


def test_a_wrong_setting_is_one_line_and_status_2(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    monkeypatch.setenv("ORCHARD_PIXEL_LIMIT", "many")
    assert main(["clean"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("orchard: ORCHARD_PIXEL_LIMIT='many'")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["clean"], ["export", "features", "--to", "-"]])
def test_without_tables_it_says_what_to_do_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Out, arguments: list[str]
) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", str(tmp_path / "fresh"))
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "is not a table: run a batch first" in err
    assert err.count("\n") == 1
    assert list(tmp_path.glob("fresh/*")) == []


def raising(error: BaseException) -> Callable[..., int]:
    def run(*_: Any) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (JobError("the file x is gone"), 1, "orchard: the file x is gone\n"),
        (PermissionError(13, "Permission denied", "/warehouse"), 1, "Permission denied: '/warehouse'"),
        (KeyboardInterrupt(), 130, "orchard: interrupted"),
    ],
)
def test_a_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Out, error: BaseException, status: int, words: str) -> None:
    from orchard.commands import clean

    monkeypatch.setattr(clean, "run", raising(error))
    assert main(["clean"]) == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_damaged_report_is_named(tables: Tables, settings: Settings, capsys: Out) -> None:
    run_batch(tables, settings, DAY, bucket_of(DAY))
    path = next(path for path, _ in tables.warehouse.list("_work") if path.endswith("/report.json"))
    tables.warehouse.rewrite(path, b'{"work": ')
    assert main(["clean"]) == 1
    err = capsys.readouterr().err
    assert f"{path} is damaged" in err
    assert "remove this file" in err


def test_tables_of_another_schema_version_are_not_read(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    run_batch(tables, settings, DAY, bucket_of(DAY))
    monkeypatch.setattr("orchard.tables.delta_log.SCHEMA_VERSION", 99)
    assert main(["status", "--no-listing"]) == 2
    assert "has schema version 2; this release supports schema 99" in capsys.readouterr().err


def test_an_unknown_connection_is_refused(tables: Tables, settings: Settings, capsys: Out) -> None:
    run_batch(tables, settings, DAY, bucket_of(DAY))
    assert main(["status", "--json", "--connection", "not_there"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "Airflow has no connection 'not_there'" in found.err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchard.commands import clean

    monkeypatch.setattr(clean, "run", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["clean"])


def test_clean_only_shows_until_it_is_told_yes(tables: Tables, settings: Settings, capsys: Out) -> None:
    for salt in ("", "new"):
        run_batch(tables, settings, DAY, bucket_of(DAY, salt))
    age(tables)
    before = stored(tables)
    for arguments in ([], ["--dry-run"]):
        assert main(["clean", *arguments]) == 0
        assert "nothing was removed: `orchard clean --yes` removes them" in capsys.readouterr().out
    assert main(["clean", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert stored(tables) == before
    assert not shown["is_removed"]
    assert main(["clean", "--yes", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["is_removed"], done["totals"]) == (True, shown["totals"])
    gone = before - stored(tables)
    assert gone == set(shown["files"])
    assert sum(total["files"] for total in shown["totals"]) == len(gone)


def test_clean_takes_another_age(tables: Tables, settings: Settings, capsys: Out) -> None:
    for salt in ("", "new"):
        run_batch(tables, settings, DAY, bucket_of(DAY, salt))
    assert main(["clean", "--yes", "--older-than", "1"]) == 0
    assert "nothing to remove: everything older than 1 days is still in use" in capsys.readouterr().out
    assert main(["clean", "--yes", "--older-than", "0"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["kind", "report", "manifest", "replaced", "scratch", "removed"]


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "orchard.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == orchard.__version__


def test_sizes_and_tables_are_readable() -> None:
    sizes = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 KB", 1_530_000: "1.5 MB", 2 * 10**15: "2000.0 TB"}
    assert {size: format_bytes(size) for size in sizes} == sizes
    assert format_table(("a", "rows"), [("xyz", "5"), ("y", "-")]) == "a    rows\nxyz     5\ny       -"
