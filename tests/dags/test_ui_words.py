"""The walk through Airflow's UI names buttons as the installed Airflow does."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import airflow
from support.repository import ROOT

DOCS = ROOT / "docs" / "operating.md"
ENGLISH = Path(airflow.__file__).parent / "ui" / "dist" / "i18n" / "locales" / "en"


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    else:
        yield value


def test_the_walk_of_a_backfill_uses_the_words_of_the_ui() -> None:
    walk = DOCS.read_text().partition("In the UI (labels of Airflow 3.3):")[2].partition("\n## ")[0]
    named = re.findall(r"\*\*(.+?)\*\*", walk) + re.findall(r'"(.+?)"', walk)
    shown = {text for path in ENGLISH.glob("*.json") for text in texts(json.loads(path.read_text()))}
    assert len(named) > 10
    assert [name for name in named if name.replace("image_batches", "{{dag_display_name}}") not in shown] == []
