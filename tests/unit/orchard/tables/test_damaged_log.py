"""A lost or damaged file of a table's log is named, in Orchard's words."""

import pytest
from orchard.models.registry import pin, unpin
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import DeltaSnapshot
from orchard_jobs.contract.columns import PINS
from orchard_jobs.errors import DamagedFileError
from support.damage import cut, lose

COMMIT, CHECKPOINT = "pins/_delta_log/00000000000000000001.json", "pins/_delta_log/00000000000000000002.checkpoint.parquet"


@pytest.fixture
def pinned(tables: Tables, settings: Settings, models: tuple[str, str]) -> Tables:
    """Two commits, and a checkpoint after them."""
    pin(tables, settings, models[0])
    unpin(tables, settings, models[0])
    return tables


def checkpoint(tables: Tables) -> None:
    snapshot = tables.load(PINS)
    assert isinstance(snapshot, DeltaSnapshot)
    snapshot.delta.create_checkpoint()


def told(tables: Tables) -> str:
    with pytest.raises(DamagedFileError, match="orchard verify") as raised:
        tables.load(PINS)
    text = str(raised.value)
    assert [raw for raw in ("ParsedLogPath", "Kernel", "\x1b", "\n") if raw in text] == []
    return text


def test_a_lost_commit_is_named(pinned: Tables) -> None:
    lose(pinned.warehouse, COMMIT)
    assert f"{pinned.warehouse.uri_of(COMMIT)} is not there" in told(pinned)


def test_a_cut_commit_is_named(pinned: Tables) -> None:
    cut(pinned.warehouse, COMMIT)
    assert f"{pinned.warehouse.uri_of(COMMIT)} is not JSON: it was cut or changed" in told(pinned)


def test_a_lost_checkpoint_is_named(pinned: Tables) -> None:
    checkpoint(pinned)
    lose(pinned.warehouse, CHECKPOINT)
    assert "pins/_delta_log/_last_checkpoint names a checkpoint that is not there" in told(pinned)


def test_a_cut_checkpoint_is_named(pinned: Tables) -> None:
    checkpoint(pinned)
    cut(pinned.warehouse, CHECKPOINT)
    assert f"{pinned.warehouse.uri_of(CHECKPOINT)} cannot be decoded" in told(pinned)
