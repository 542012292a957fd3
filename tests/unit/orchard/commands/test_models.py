"""`orchard models`: what it lists, what it changes, and how it draws."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from orchard.commands import models as command
from orchard.models.kinds import CLASSIFIER
from orchard.models.model import current_promotion, pinned_models, read_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import CAPTURED
from orchard_jobs.errors import ConfigurationError, JobError
from support.faked_flow import run_batch, run_model
from support.published_batches import DAYS


def call(tables: Tables, settings: Settings, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(argv), settings, tables)


@pytest.mark.parametrize("argv", [("--json",), ("list", "--json"), ("--json", "list")])
def test_the_list_says_what_each_model_is(
    tables: Tables, always: Settings, models: tuple[str, str], capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    assert call(tables, always, *argv) == 0
    answer = json.loads(capsys.readouterr().out)
    first, second = answer["models"]
    assert answer["backbone"] == always.backbone.id
    assert [one["model_id"] for one in (first, second)] == list(models)
    assert [(one["k"], one["n"], one["batches"]) for one in (first, second)] == [(3, 12, 1), (3, 24, 2)]
    assert (first["gain"], first["distance"], first["is_current"], second["is_current"]) == (None, None, False, True)
    assert 0 < second["gain"] < 1
    assert 0 < second["distance"] <= 1
    ratios = read_model(tables.warehouse, models[1]).basis.explained_variance_ratio
    assert second["explained_variance_ratio"] == list(ratios)
    kept = [row for row in tables.rows(CAPTURED) if row["model_id"] == models[1]]
    assert {row["batch_id"] for row in kept} == set(DAYS[:2])
    exact = sum(row["captured"] * row["total"] for row in kept) / sum(row["total"] for row in kept)
    assert second["captured"] == pytest.approx(exact, rel=1e-12)


def test_the_text_marks_what_is_chosen_and_draws_the_current_model(
    tables: Tables, always: Settings, models: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    call(tables, always, "promote", models[0])
    call(tables, always, "pin", models[0])
    call(tables, always, "pin", models[1])
    capsys.readouterr()
    assert call(tables, always) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(models[0])
    assert lines[1].endswith("current, held, pinned")
    assert lines[2].endswith("  pinned")
    assert lines[4].startswith(f"{models[0]}: share of the variance")
    call(tables, always, "list", "--scree", models[1][:12])
    assert f"{models[1]}: share of the variance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("action", "words"),
    [("promote", "is current and held"), ("pin", "is pinned"), ("unpin", "is not pinned"), ("release", "is not held")],
)
def test_an_action_prints_the_new_state_and_whether_it_changed_anything(
    tables: Tables, always: Settings, models: tuple[str, str], capsys: pytest.CaptureFixture[str], action: str, words: str
) -> None:
    argv = (action,) if action == "release" else (action, models[1][:10])
    if action == "release":
        call(tables, always, "promote", models[1])
    if action == "unpin":
        call(tables, always, "pin", models[1])
    capsys.readouterr()
    assert [call(tables, always, *argv), call(tables, always, *argv, "--json")] == [0, 0]
    text, answer = capsys.readouterr().out.splitlines()
    assert text == f"{models[1]} {words}"
    assert json.loads(answer) == {"model_id": models[1], "action": action, "is_changed": False}
    assert call(tables, always, *argv) == 0
    assert capsys.readouterr().out.endswith("nothing to do\n")
    promotion = current_promotion(tables, always.backbone.id)
    assert promotion is not None
    assert promotion.is_held is (action == "promote")
    assert pinned_models(tables, always.backbone.id) == ((models[1],) if action == "pin" else ())


def test_a_warehouse_without_a_model_says_so(
    tables: Tables, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tables, settings) == 0
    assert "has no model yet" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="no model has the id 'pca-1'"):
        call(tables, settings, "pin", "pca-1")
    with pytest.raises(JobError, match="is not a table"):
        call(Tables.at(str(tmp_path / "nothing")), settings)


def lines_of(ratios: list[float], **options: Any) -> list[str]:
    return command.format_scree("pca-0123456789abcdef", ratios, **options).splitlines()[1:]


def test_a_scree_is_as_long_as_the_shares_and_fits_a_terminal() -> None:
    lines = lines_of([0.4, 0.2, 0.1, 0.0025])
    assert [line.count("█") for line in lines] == [40, 20, 10, 0]
    assert [line.split()[-2:] for line in lines[:2]] == [["40.00%", "40.00%"], ["20.00%", "60.00%"]]
    assert "▎" in lines[3]
    assert max(map(len, lines)) <= 80


def test_a_long_scree_ends_with_what_the_others_keep_together() -> None:
    lines = lines_of([0.01] * 100)
    assert len(lines) == 21
    assert lines[-1].split()[0] == "21-100"
    assert lines[-1].split()[-2:] == ["80.00%", "100.00%"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None])
def test_a_terminal_without_block_elements_gets_other_bars(encoding: str | None) -> None:
    lines = lines_of([0.4, 0.2], encoding=encoding)
    assert [line.count("#") for line in lines] == [40, 20]
    assert "\n".join(lines).isascii()


def test_classifiers_are_listed_beside_pca_models(tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for day in DAYS[:2]:
        names = [f"{label}/{n}" for label in ("apple", "plum") for n in range(12)]
        run_batch(tables, settings, day, {f"images/{day}/{name}.jpg": f"{day}/{name}".encode() for name in names})
    decided = run_model(tables, settings, "fit", CLASSIFIER)
    assert call(tables, settings, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    (found,) = answer["classifiers"]
    assert answer["models"] == []
    assert (found["model_id"], found["classes"], found["n"], found["batches"]) == (decided.model_id, ["apple", "plum"], 48, 2)
    assert (found["accuracy"], found["held_out"], found["is_current"]) == (0.5, "batches", True)
    call(tables, settings, "promote", "lda-")
    assert call(tables, settings) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.split() == [decided.model_id, "2", "48", "2", *line.split()[4:5], "50.0%", "48", "rows,", "by", "batches"] + [
        "current,",
        "held",
    ]
    assert call(tables, settings, "release", "classifier") == 0
    assert capsys.readouterr().out == f"{decided.model_id} is not held\n"
