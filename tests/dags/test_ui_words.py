"""The walk through Airflow's UI names buttons as the installed Airflow does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import airflow
import pytest
from support.documents import find_unknown_labels
from support.repository import ROOT

ENGLISH = Path(airflow.__file__).parent / "ui" / "dist" / "i18n" / "locales" / "en"


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    else:
        yield value


@pytest.fixture(scope="module")
def shown() -> set[str]:
    return {text for path in ENGLISH.glob("*.json") for text in texts(json.loads(path.read_text()))}


def test_the_walk_of_a_backfill_uses_the_words_of_the_ui(shown: set[str]) -> None:
    walk = (ROOT / "docs" / "operating.md").read_text().partition("\n### In the UI\n")[2].partition("\n## ")[0]
    assert walk.count("**") > 20
    assert list(find_unknown_labels(walk, shown)) == []


@pytest.mark.parametrize("walk", ["", "A walk without a label.", "Press **Begin Backfill**.", 'Choose **Backfill** ("Run it")'])
def test_a_wrong_walk_is_found(shown: set[str], walk: str) -> None:
    assert len(list(find_unknown_labels(walk, shown))) == 1
