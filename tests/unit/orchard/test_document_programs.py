"""The documents' programs read a warehouse of two backbones, whose vectors have different lengths, and two kinds of model."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from orchard.models.kinds import CLASSIFIER
from orchard.models.model import current_promotion
from orchard.models.registry import PromotionRequest, append_promotion
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import Backbone
from support.changed_settings import with_variables
from support.documents import PAGES, programs_in
from support.published_batches import BUCKETS
from support.published_batches import publish_backbone as publish

WAREHOUSE = '".orchard/warehouse"'
# Those of Spark and of the job package need an environment of their own.
PROGRAMS = [text for page in PAGES for text in programs_in(page.read_text()) if not re.search("pyspark|orchard_jobs", text)]


def find_faults(program: str, folder: str) -> Iterator[str]:
    """Run a program on the tables of a folder; yield why it is no program for a reader."""
    if program.count(f"warehouse = {WAREHOUSE}") != 1:
        yield "names no warehouse, or several"
    before, out = set(Path().iterdir()), io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(program.replace(WAREHOUSE, repr(folder)), {})
    except Exception as error:
        yield f"fails: {error!r}"
    if bool(out.getvalue()) == (set(Path().iterdir()) != before):
        yield "neither prints nor writes, or both"


@pytest.fixture
def folder(tables: Tables, settings: Settings, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Publish by two backbones, by the first one batch more, and promote a classifier of each; return the warehouse's folder."""
    monkeypatch.setitem(BUCKETS, "2026-01-09", {f"images/2026-01-09/kiwi/{n}.jpg": b"%d" % n for n in range(6)})
    publish(tables, settings)
    monkeypatch.delitem(BUCKETS, "2026-01-09")
    other = replace(backbone, engine="tensorflow", dimension=backbone.dimension + 4)
    publish(tables, with_variables(replace(settings, backbone=other), ORCHARD_COMPONENTS=2))
    for number, one in enumerate((backbone, other)):
        first = PromotionRequest(one.id, f"lda-{number}", None, "there is no model yet", kind=CLASSIFIER)
        assert append_promotion(tables, first)
        again = replace(first, model_id=f"lda-{number}-2", judged=current_promotion(tables, one.id, CLASSIFIER))
        assert append_promotion(tables, again)
    monkeypatch.chdir(tmp_path)
    return tables.warehouse.uri.removeprefix("file://")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: re.findall(r"(?:import|from) (\w+)", text)[0])
def test_a_program_of_the_documents_runs(program: str, folder: str) -> None:
    assert list(find_faults(program, folder)) == []


def test_the_csv_file_has_a_row_for_each_image_of_the_current_model(folder: str) -> None:
    (program,) = (program for program in PROGRAMS if "write_csv" in program)
    assert list(find_faults(program, folder)) == []
    rows = pl.read_csv("pca_features.csv")
    names = ["batch_id", "image_uri", "label", "pca_0", "pca_1", "pca_2"]
    assert (rows.columns, rows.height, rows["image_uri"].n_unique()) == (names, 30, 30)
    assert rows.null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize(
    "program",
    [
        f"from deltalake import DeltaTable\nwarehouse = {WAREHOUSE}\nprint(DeltaTable(f'{{warehouse}}/gone').to_pandas())",
        f"warehouse = {WAREHOUSE}\n",
        "print('a warehouse of its own')",
    ],
)
def test_a_wrong_program_is_found(program: str, folder: str) -> None:
    assert len(list(find_faults(program, folder))) > 0


def test_the_programs_are_found() -> None:
    assert len(PROGRAMS) == 5
