"""Paths in a Delta log: each is built and parsed by one form, and the forms are those that delta-rs writes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from orchard.tables.commit_rule import Tables
from orchard.tables.log_paths import LogPath, hint_path, is_in_log, log_folder
from orchard_jobs.contract.columns import FEATURES, PINS, RUNS, TABLES
from orchard_jobs.contract.locations import local_path


@given(some.builds(LogPath, some.sampled_from(TABLES), some.integers(0, 10**20 - 1), some.booleans()))
def test_what_is_built_is_parsed_back(path: LogPath) -> None:
    assert LogPath.find(path.table, str(path)) == path
    assert is_in_log(str(path))


def test_a_new_tables_first_commit_is_where_the_path_says(tables: Tables) -> None:
    tables.create_all()
    assert Path(str(local_path(tables.warehouse.uri)), str(LogPath(PINS, 0))).is_file()


@pytest.mark.parametrize("name", ["_last_checkpoint", "0.json", f"{0:020}.json.tmp", f"{0:020}.checkpoint.1.2.parquet"])
def test_any_other_file_of_a_log_is_neither_commit_nor_checkpoint(name: str) -> None:
    path = f"{log_folder(RUNS)}/{name}"
    assert LogPath.find(RUNS, path) is None
    assert is_in_log(path)


def test_the_hint_lies_in_the_log() -> None:
    assert hint_path(FEATURES) == "features/_delta_log/_last_checkpoint"


@pytest.mark.parametrize(
    "path", ["runs", "runs/backbone=b/part-0.parquet", "runs/_delta_logs/0.json", "strangers/_delta_log/0.json"]
)
def test_what_lies_elsewhere_is_in_no_log(path: str) -> None:
    assert not is_in_log(path)
