"""The paths in a table's Delta log, as Delta's protocol names them: built from a version, and parsed back into it."""

import re
from dataclasses import dataclass

from orchard_jobs.contract.columns import TABLES, Table
from orchard_jobs.contract.layout import relative_to_table, table_path
from orchard_jobs.contract.locations import is_below

_LOG = "_delta_log"
_FORM = re.compile(rf"{_LOG}/([0-9]{{20}})\.(json|checkpoint\.parquet)")


@dataclass(frozen=True)
class LogPath:
    """A file of a table's log; `str` gives its path relative to the warehouse.

    Attributes:
        table: the table.
        version: the version that the commit makes, or that the checkpoint sums up.
        is_checkpoint: whether it is a checkpoint, in one file.
    """

    table: Table
    version: int
    is_checkpoint: bool = False

    def __str__(self) -> str:
        ending = "checkpoint.parquet" if self.is_checkpoint else "json"
        return table_path(self.table, f"{_LOG}/{self.version:020}.{ending}")

    @classmethod
    def find(cls, table: Table, path: str) -> "LogPath | None":
        """Return what a path below the table's folder names; None for what is neither a commit nor a checkpoint."""
        match = _FORM.fullmatch(relative_to_table(table, path))
        return cls(table, int(match[1]), match[2] != "json") if match else None


def log_folder(table: Table) -> str:
    """Folder of a table's log."""
    return table_path(table, _LOG)


def hint_path(table: Table) -> str:
    """File that names a table's newest checkpoint, so that a reader need not list the log."""
    return table_path(table, f"{_LOG}/_last_checkpoint")


def is_in_log(path: str) -> bool:
    """Tell whether a path is the log of a table of Orchard, or lies in one."""
    return any(path == folder or is_below(path, folder) for folder in map(log_folder, TABLES))
