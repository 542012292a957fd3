"""The rules by which a cleaning spares what others need, each switched off in turn: see `planted_faults`."""

from typing import Any

import pytest
from orchard.maintenance import clean

from support.simulation.store import SimulatedWarehouse

Patch = pytest.MonkeyPatch


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


def marks_are_looked_at_once(patch: Patch) -> None:
    """A cleaning looks for a mark once more after it has noted what goes."""
    note_then_look = clean._note_then_look

    def never(warehouse: Any, work: str, names: Any, young_since: Any) -> bool:
        note_then_look(warehouse, work, names, young_since)
        return False

    patch.setattr(clean, "_note_then_look", never)


def what_tables_name_is_cleaned(patch: Patch) -> None:
    """No file that a table names is removed, however old it is."""
    patch.setattr(clean, "named_by_tables", lambda tables, settings, seen: ())
