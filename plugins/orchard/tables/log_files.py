"""The files of a table's Delta log: which of them are lost or damaged, and the way round a lost checkpoint.

A commit's file is JSON lines. A checkpoint sums up all commits up to its own, so that older ones are not read any more.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchard_jobs.contract.columns import Table
from orchard_jobs.contract.layout import relative_to_table, table_path
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import Warehouse

LOG = "_delta_log"
_HINT = f"{LOG}/_last_checkpoint"
_FILE = re.compile(rf"{LOG}/([0-9]{{20}})\.(json|checkpoint\.parquet)")


def commit_path(table: Table, number: int) -> str:
    """File of a table's commit."""
    return table_path(table, f"{LOG}/{number:020}.json")


@dataclass(frozen=True)
class LogFiles:
    """The files of one table's log: commits and checkpoints by number, and whether one of them is said to be the newest."""

    warehouse: Warehouse
    table: Table
    commits: dict[int, str] = field(default_factory=dict)
    checkpoints: dict[int, str] = field(default_factory=dict)
    has_hint: bool = False

    @classmethod
    def of(cls, warehouse: Warehouse, table: Table) -> "LogFiles":
        """List a table's log."""
        found = cls(warehouse, table, has_hint=warehouse.size(table_path(table, _HINT)) is not None)
        for path, _ in warehouse.list(table_path(table, LOG)):
            if match := _FILE.fullmatch(relative_to_table(table, path)):
                (found.commits if match[2] == "json" else found.checkpoints)[int(match[1])] = path
        return found

    @staticmethod
    def is_log(path: str) -> bool:
        """Tell whether a path is below a table's log."""
        return f"/{LOG}/" in path

    @property
    def paths(self) -> list[str]:
        """Every commit and checkpoint."""
        return sorted([*self.commits.values(), *self.checkpoints.values()])

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (path, fault) of each file that is lost or cannot be read, of those that loading the table needs."""
        newest = max(self.checkpoints, default=-1)
        if not self.commits and newest < 0:
            yield table_path(self.table, LOG), "has no commit"
            return
        if self.has_hint and newest < 0:
            yield table_path(self.table, _HINT), "names a checkpoint that is not there"
        if newest >= 0:
            yield from self._checkpoint_faults(self.checkpoints[newest])
        for number in range(newest + 1, max(self.commits, default=newest) + 1):
            if number in self.commits:
                yield from self._commit_faults(self.commits[number])
            else:
                yield commit_path(self.table, number), "is not there"

    def drop_checkpoints(self) -> bool:
        """Remove all checkpoints where the commits alone tell all that they tell; return whether they do."""
        if sorted(self.commits) != list(range(len(self.commits))) or not self.commits:
            return False
        if any(True for path in self.commits.values() for _ in self._commit_faults(path)):
            return False
        for path in (table_path(self.table, _HINT), *self.checkpoints.values()):
            self.warehouse.delete(path)
        return True

    def remove(self) -> None:
        """Remove the whole log, so that the table can be created anew."""
        for path, _ in list(self.warehouse.list(table_path(self.table, LOG))):
            self.warehouse.delete(path)

    def _checkpoint_faults(self, path: str) -> Iterator[tuple[str, str]]:
        try:
            with open_parquet(self.warehouse, path, is_whole=True) as file:
                file.read()
        except DamagedFileError as error:
            yield path, error.fault

    def _commit_faults(self, path: str) -> Iterator[tuple[str, str]]:
        lines = (self.warehouse.read_if_there(path) or b"").splitlines()
        try:
            is_whole = bool(lines) and all(isinstance(json.loads(line), dict) for line in lines)
        except ValueError:
            is_whole = False
        if not is_whole:
            yield path, "is not JSON: it was cut or changed"
