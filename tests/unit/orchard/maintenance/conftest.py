"""A warehouse that has been used, made once a module."""

import shutil
from pathlib import Path

import pytest
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from support.changed_settings import with_variables
from support.cleaning import DAYS, bucket_of, stage_refused
from support.faked_flow import run_batch, run_model
from support.warehouse_files import root_of


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that uses `used` puts it, for the others to copy."""
    return tmp_path_factory.mktemp("used") / "warehouse"


@pytest.fixture
def used(tables: Tables, settings: Settings, kept: Path) -> Tables:
    """Two published batches, the first in its fourth version, which kept rows; two models; a version that its audit refused."""
    here = root_of(tables)
    if kept.exists():
        shutil.copytree(kept, here, dirs_exist_ok=True)
        return tables
    for day in DAYS:
        run_batch(tables, settings, day, bucket_of(day))
    run_model(tables, settings)
    for salt in ("other", "new"):
        run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], salt))
    late = {f"images/{DAYS[0]}/pear/late.jpg": b"late"}
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], "new") | late)
    run_model(tables, with_variables(settings, ORCHARD_COMPONENTS=2), "second")
    stage_refused(tables, settings)
    shutil.copytree(here, kept)
    return tables
