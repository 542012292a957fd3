"""The rules by which a cleaning spares what others need, each switched off in turn: see `planted_faults`."""

from typing import Any

import pytest
from orchard.maintenance import clean, work_files
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import TABLES

from support.simulation.store import SimulatedWarehouse

Patch = pytest.MonkeyPatch


def young_files_are_cleaned(patch: Patch) -> None:
    """What is young stays: a job may be running."""
    patch.setattr(work_files.WorkFiles, "is_young", lambda seen, path: False)


def reports_go_with_what_they_name(patch: Patch) -> None:
    """What a report names goes one retention after the report."""
    stays = clean._stays
    patch.setattr(clean, "_stays", lambda seen, needed, retention, documents: stays(seen, needed, retention, []))


def work_is_not_marked(patch: Patch) -> None:
    """Old work that a run takes up is marked, so that no cleaning removes what it reads."""
    rewrite = SimulatedWarehouse.rewrite

    def rewrite_data(warehouse: SimulatedWarehouse, path: str, content: bytes) -> None:
        if not path.endswith("/planned/mark.json"):
            rewrite(warehouse, path, content)

    patch.setattr(SimulatedWarehouse, "rewrite", rewrite_data)


def work_is_taken_up_while_it_goes(patch: Patch) -> None:
    """A run takes up no work of which a cleaning has noted that it goes."""
    size = SimulatedWarehouse.size
    patch.setattr(SimulatedWarehouse, "size", lambda warehouse, path: None if "/retired/" in path else size(warehouse, path))


def marks_are_looked_at_once(patch: Patch) -> None:
    """A cleaning looks for a mark once more after it has noted what goes."""
    is_taken_up = clean._is_taken_up

    def never(warehouse: Any, work: str, names: Any, young_since: Any) -> bool:
        is_taken_up(warehouse, work, names, young_since)
        return False

    patch.setattr(clean, "_is_taken_up", never)


def replaced_files_are_cleaned_at_once(patch: Patch) -> None:
    """What was replaced stays for a retention: somebody may still read the version before."""
    patch.setattr(clean, "replaced_files", lambda tables: {})


def files_of_the_version_before_are_cleaned(patch: Patch) -> None:
    """While a version is half-way, the files of the one before stay."""

    def named_by_newest(tables: Tables, settings: Any, seen: Any) -> Any:
        return (file.path for table in TABLES for file in tables.load(table).files())

    patch.setattr(clean, "named_by_tables", named_by_newest)
