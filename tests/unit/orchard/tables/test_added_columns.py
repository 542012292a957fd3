"""A table of an earlier release goes on: its log learns the new columns, old rows have none of them, and writers meet no harm."""

from dataclasses import replace
from pathlib import Path

import pyarrow.csv as pa_csv
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableAlterer
from orchard.models.model import current_promotion, pinned_models
from orchard.models.registry import PromotionRequest, append_promotion
from orchard.reporting.export import chunks_of, select, write_raw_csv
from orchard.settings import Settings
from orchard.tables.commit_rule import Change, Tables
from orchard.tables.delta_log import ConflictError
from orchard_jobs.contract.columns import PINS, PROMOTIONS, Table
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.errors import JobError
from orchard_jobs.schemas import arrow_schema

BEFORE = {
    table: replace(table, columns=tuple(column for column in table.columns if column.name != "kind"))
    for table in (PROMOTIONS, PINS)
}
VALUES = {"string": "x", "int64": 1, "float64": 0.5, "bool": True, "timestamp": 0}


def row_of(table: Table, **values: object) -> dict[str, object]:
    return {column.name: VALUES[column.type] for column in table.columns} | values


@pytest.fixture
def earlier(settings: Settings) -> Tables:
    """Tables with a promotion and a pin, as the release before this column made them."""
    tables, backbone = Tables.at(settings.warehouse), settings.backbone.id
    for table, old in BEFORE.items():
        tables.log.create(old)
        row = row_of(old, backbone=backbone, model_id="pca-old", sequence=1)
        change = Change(f"{table.name}/{backbone}", 1, "a" * 64, (), (tables.stage(old, [row]),))
        tables.commit(old, [change], "append")
    return tables


def test_old_rows_stay_and_are_those_of_pca(earlier: Tables, settings: Settings) -> None:
    for _ in range(2):
        earlier.create_all()
        promotion = current_promotion(earlier, settings.backbone.id)
        assert promotion is not None
        assert (promotion.sequence, promotion.model_id) == (1, "pca-old")
        assert pinned_models(earlier, settings.backbone.id) == ("pca-old",)


def test_the_log_knows_the_new_columns_once(earlier: Tables) -> None:
    uri = earlier.warehouse.uri_of(PROMOTIONS.name)
    earlier.create_all()
    version = DeltaTable(uri).version()
    assert [field.name for field in DeltaTable(uri).schema().fields] == arrow_schema(PROMOTIONS).names
    earlier.create_all()
    assert DeltaTable(uri).version() == version


def test_new_rows_stand_beside_old_ones(earlier: Tables, settings: Settings) -> None:
    earlier.create_all()
    backbone = settings.backbone.id
    assert append_promotion(earlier, PromotionRequest(backbone, "pca-new", current_promotion(earlier, backbone), "why"))
    kinds = {row["model_id"]: row["kind"] for row in earlier.rows(PROMOTIONS)}
    assert kinds == {"pca-old": None, "pca-new": "pca"}
    promotion = current_promotion(earlier, backbone)
    assert promotion is not None
    assert (promotion.sequence, promotion.model_id) == (2, "pca-new")


def test_a_commit_that_was_decided_on_before_conflicts(earlier: Tables, settings: Settings) -> None:
    """So its writer loads the table again, as with any other commit."""
    stale = earlier.log.load(PROMOTIONS)
    earlier.create_all()
    staged = StagedPartition(PROMOTIONS.name, (), (earlier.stage(PROMOTIONS, [row_of(PROMOTIONS)]),))
    with pytest.raises(ConflictError):
        earlier.log.commit(stale, PROMOTIONS, [staged], {}, "append")
    earlier.log.commit(earlier.log.load(PROMOTIONS), PROMOTIONS, [staged], {}, "append")
    assert len(list(earlier.rows(PROMOTIONS))) == 2


def test_old_rows_are_exported_without_the_new_value(earlier: Tables, settings: Settings, tmp_path: Path) -> None:
    earlier.create_all()
    with (tmp_path / "promotions.csv").open("wb") as file:
        write_raw_csv(chunks_of(earlier, select(earlier, settings, PROMOTIONS, None, None)), arrow_schema(PROMOTIONS), file)
    found = pa_csv.read_csv(tmp_path / "promotions.csv")
    assert found.column_names == arrow_schema(PROMOTIONS).names
    assert found.column("kind").null_count == 1


def test_endless_conflicts_are_an_error(earlier: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(*_: object) -> None:
        raise CommitFailedError("another writer was faster")

    monkeypatch.setattr(TableAlterer, "add_columns", conflict)
    with pytest.raises(JobError, match="promotions: gave up after 20 conflicts"):
        earlier.create_all()
