"""The README's programs read a warehouse that holds two backbones, whose vectors and models have different lengths."""

import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import Backbone
from support.batches import BUCKETS
from support.batches import publish_backbone as publish
from support.batches import switch_backbone as switch
from support.repository import ROOT

README = ROOT / "README.md"
# Spark's needs an environment that neither the jobs nor Airflow has.
PROGRAMS = [text for text in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "pyspark" not in text]


@pytest.fixture
def largest(tables: Tables, settings: Settings, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> int:
    """Publish by two backbones, by the second one batch more; return the components of its model."""
    monkeypatch.setitem(BUCKETS, "2026-01-09", {f"images/2026-01-09/kiwi/{n}.jpg": b"%d" % n for n in range(6)})
    publish(tables, settings)
    monkeypatch.delitem(BUCKETS, "2026-01-09")
    other = replace(backbone, engine="tensorflow", dimension=backbone.dimension + 4)
    switch(monkeypatch, other)
    publish(tables, replace(settings, components=2))
    return 3


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: re.findall(r"import (\w+)", text)[0])
def test_a_program_of_the_readme_runs(
    program: str, tables: Tables, largest: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program.count('warehouse = ".orchard/warehouse"') == 1
    folder = tables.warehouse.uri.removeprefix("file://")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program.replace(".orchard/warehouse", folder), {})
    written = Path("pca_features.csv")
    assert bool(out.getvalue()) != written.exists()
    if written.exists():
        rows = pl.read_csv(written)
        names = ["batch_id", "image_uri", "label", *(f"pca_{n}" for n in range(largest))]
        assert (rows.columns, rows.height, rows["image_uri"].n_unique()) == (names, 30, 30)
        assert rows.null_count().sum_horizontal().item() == 0


def test_the_programs_are_found() -> None:
    assert len(PROGRAMS) == 4
