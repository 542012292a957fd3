"""Faults that a test causes in the code under test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from orchard.tables.commit_rule import Change, Committed, Tables
from orchard_jobs.contract.columns import Table

from support.simulation.scheduler import Killed


@contextmanager
def killed_after(commits: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill the block at the commit after so many."""
    real = Tables.commit
    done: list[Table] = []

    def commit(self: Tables, table: Table, changes: list[Change], mode: Any = "overwrite") -> Committed:
        if len(done) == commits:
            raise Killed
        done.append(table)
        return real(self, table, changes, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "commit", commit)
        try:
            yield
        except Killed:
            return
    pytest.fail(f"nothing was killed after {commits} commits")
