"""The files of a table's Delta log: which of them are lost or damaged, and the way round a lost checkpoint.

A commit's file is JSON lines. A checkpoint sums up all commits up to its own, so that older ones are not read any more.
"""

import json
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from orchard_jobs.contract.columns import Table
from orchard_jobs.errors import DamagedFileError, JobError
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import Warehouse
from orchard_jobs.store_errors import cause_of, explained

from orchard.tables.log_paths import LogPath, hint_path, log_folder

_CHANGED = "cannot be read: it was cut or changed"


@dataclass(frozen=True)
class LogFiles:
    """The commits and checkpoints of one table's log, each by the version that it makes, and whether a file names the newest."""

    warehouse: Warehouse
    table: Table
    commits: dict[int, str] = field(default_factory=dict)
    checkpoints: dict[int, str] = field(default_factory=dict)
    has_hint: bool = False

    @classmethod
    def of(cls, warehouse: Warehouse, table: Table) -> "LogFiles":
        """List a table's log."""
        found = cls(warehouse, table, has_hint=warehouse.size(hint_path(table)) is not None)
        for path, _ in warehouse.list(log_folder(table)):
            if known := LogPath.find(table, path):
                (found.checkpoints if known.is_checkpoint else found.commits)[known.version] = path
        return found

    @property
    def paths(self) -> list[str]:
        """Every commit and checkpoint."""
        return sorted([*self.commits.values(), *self.checkpoints.values()])

    @property
    def spare(self) -> frozenset[str]:
        """The files that loading the table does not need, because a checkpoint sums them up."""
        newest = max(self.checkpoints, default=-1)
        if newest < 0:
            return frozenset()
        old = [path for files in (self.commits, self.checkpoints) for version, path in files.items() if version < newest]
        return frozenset([hint_path(self.table), *old, *filter(None, [self.commits.get(newest)])])

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (path, fault) of each file that is lost or cannot be read, of those that loading the table needs."""
        found = list(self._file_faults())
        # Each file may look sound by itself: only a reader of the format can judge them together.
        yield from found or self._opening_faults()

    def _file_faults(self) -> Iterator[tuple[str, str]]:
        newest = max(self.checkpoints, default=-1)
        if not self.commits and newest < 0:
            yield log_folder(self.table), "has no commit"
            return
        if self.has_hint and newest < 0:
            yield hint_path(self.table), "names a checkpoint that is not there"
        if newest >= 0:
            yield from self._checkpoint_faults(self.checkpoints[newest])
        for version in range(newest + 1, max(self.commits, default=newest) + 1):
            if version in self.commits:
                yield from self._commit_faults(self.commits[version])
            else:
                yield str(LogPath(self.table, version)), "is not there"

    def lost_end(self, known: Container[str]) -> Iterator[tuple[str, str]]:
        """Yield (path, fault) of each known commit after the newest that is there: the log itself does not show such a loss."""
        version = max([*self.commits, *self.checkpoints], default=-1) + 1
        while (path := str(LogPath(self.table, version))) in known:
            yield path, "is not there"
            version += 1

    def has_commit_among(self, paths: Iterable[str]) -> bool:
        """Tell whether one of some files of this log is a commit, there or lost."""
        found = (LogPath.find(self.table, path) for path in paths)
        return any(known is not None and not known.is_checkpoint for known in found)

    def has_all_commits(self) -> bool:
        """Tell whether every commit is there and readable, so that no checkpoint is needed."""
        if sorted(self.commits) != list(range(len(self.commits))):
            return False
        return not any(LogFiles(self.warehouse, self.table, self.commits).faults())

    def drop_checkpoints(self) -> None:
        """Remove all checkpoints."""
        for path in (hint_path(self.table), *self.checkpoints.values()):
            self.warehouse.delete(path)

    def remove(self) -> None:
        """Remove the whole log, so that the table can be recreated."""
        for path, _ in list(self.warehouse.list(log_folder(self.table))):
            self.warehouse.delete(path)

    def explained(self, error: Exception) -> JobError:
        """Return what a reader's error comes from: the first file that is lost or damaged, or else the error's own words."""
        is_known = cause_of(error) is not None
        for path, fault in () if is_known else self.faults():
            return DamagedFileError(self.warehouse.uri_of(path), fault)
        if is_known or isinstance(error, DeltaError):
            return JobError(f"{self.warehouse.uri_of(self.table.name)} {explained(error)}")
        return DamagedFileError(self.warehouse.uri_of(log_folder(self.table)), _CHANGED)

    def _opening_faults(self) -> Iterator[tuple[str, str]]:
        """Open a local copy of what loading the table needs, so that a store out of reach is never taken for damage."""
        with TemporaryDirectory() as folder:
            newest = max(self.checkpoints, default=-1)
            needed = {version: path for version, path in self.commits.items() if version > newest}
            if newest >= 0:
                needed[newest] = self.checkpoints[newest]
            hint = hint_path(self.table)
            self._copy([*([hint] if self.has_hint else []), *needed.values()], Path(folder))
            table = Path(folder, self.table.name)
            if _opens(table):
                return
            Path(folder, hint).unlink(missing_ok=True)
            if _opens(table):
                yield hint, _CHANGED
                return
            first = next((version for version in sorted(needed) if not _opens(table, version)), max(needed))
            yield needed[first], _CHANGED

    def _copy(self, paths: list[str], folder: Path) -> None:
        for path in paths:
            content = self.warehouse.read_if_there(path)
            if content is not None:
                Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, path).write_bytes(content)

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


@contextmanager
def explaining_log_faults(warehouse: Warehouse, table: Table) -> Iterator[None]:
    """Turn what reading a table's log ends in, in a block, into the DamagedFileError or JobError that says why.

    That there is no table, or that a commit was refused, stays the error that it is.
    """
    try:
        yield
    except (TableNotFoundError, CommitFailedError):
        raise
    except (DeltaError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogFiles.of(warehouse, table).explained(error) from error


def _opens(table: Path, version: int | None = None) -> bool:
    try:
        pa.table(DeltaTable(table, version=version).get_add_actions(flatten=False))
    except Exception:
        return False
    return True
