"""register: a fault is one line that says what to do."""

from collections.abc import Callable
from typing import Any

import pytest
from orchard.cli import main
from support.catalogs import TO_GLUE, TO_UNITY
from support.databricks_tables import UnityServer

Out = pytest.CaptureFixture[str]
# Breaks something and returns the command's words.
Fault = Callable[[Any, UnityServer, pytest.MonkeyPatch], list[str]]


def nothing_published(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", "s3://cluster/empty")
    return TO_GLUE


def no_database(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["register", "--glue", "absent"]


def no_region(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    return TO_GLUE


def no_schema(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["register", "--unity", "main.absent"]


def no_right(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    unity.failures += [(403, "PERMISSION_DENIED")]
    return TO_UNITY


def wrong_token(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("DATABRICKS_TOKEN", "wrong")
    return TO_UNITY


def half_a_name(glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["register", "--unity", "main"]


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (nothing_published, 1, "s3://cluster/empty holds no table: run a batch first"),
        (no_database, 1, "cannot read Glue database absent: "),
        (no_region, 1, "cannot reach Glue database orchard: You must specify a region"),
        (no_schema, 1, "cannot read Unity Catalog schema main.absent: "),
        (no_right, 1, "EXTERNAL USE LOCATION"),
        (wrong_token, 1, "check the credentials"),
        (half_a_name, 2, "--unity 'main' is not CATALOG.SCHEMA"),
    ],
)
def test_a_fault_is_one_line(
    fault: Fault, status: int, words: str, glue: Any, unity: UnityServer, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    assert main([*fault(glue, unity, monkeypatch), "--json"]) == status
    out, err = capsys.readouterr()
    assert words in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize("where", [[], ["--glue", "x", "--unity", "main.ml"]])
def test_exactly_one_catalog_has_to_be_named(where: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["register", *where])
    assert ended.value.code == 2
