"""Where everything lies under the warehouse: each kind of path once, built from its values and parsed back into them.

Paths are relative to the warehouse. What `parse` does not know, Orchard did not write.
"""

import re
import secrets
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar

from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import MODELS, TABLES, Table
from orchard_jobs.contract.locations import name_of

WORK = "_work"
MANIFESTS, CHECKSUMS, NETWORKS = f"{WORK}/manifests", f"{WORK}/checksums", f"{WORK}/networks"
_PROGRESS, _ATTEMPTS = f"{WORK}/{{work}}/progress", f"{WORK}/{{work}}/attempts"
_SHA256, _PROCESS = "[0-9a-f]{64}", "[0-9a-f]{16}"
# What a field of a form may hold; any other field is one element of the path.
_FIELDS = {"digest": _SHA256, "work": _SHA256, "process": f"{_PROCESS}|planned", "attempt": "[0-9]{6,}", "name": ".+"}
_FIELDS |= {"ending": "onnx|sha256", "table": f"{MODELS.name}|{CLASSIFIERS.name}"}


@dataclass(frozen=True)
class WarehousePath:
    """The values in one path; `str` gives its text."""

    form: ClassVar[str]

    def __str__(self) -> str:
        return self.form.format_map(vars(self))


@dataclass(frozen=True)
class ManifestPath(WarehousePath):
    """A file of a manifest: its head, or a part of a name."""

    form = f"{MANIFESTS}/{{digest}}/{{name}}"
    digest: str
    name: str = "head.json"

    @property
    def is_head(self) -> bool:
        """Tell whether it is the head, by which a manifest is known."""
        return self == ManifestPath(self.digest)


@dataclass(frozen=True)
class ProjectionPlanPath(WarehousePath):
    """A projection plan."""

    form = f"{WORK}/plans/{{digest}}.json"
    digest: str


@dataclass(frozen=True)
class ModelPlanPath(WarehousePath):
    """A model plan: what a run of pca_model decided, and why."""

    form = f"{WORK}/decisions/{{digest}}.json"
    digest: str


@dataclass(frozen=True)
class BackbonePath(WarehousePath):
    """A backbone's export, which workers load, or the SHA-256 of it."""

    form = f"{NETWORKS}/{{backbone}}.{{ending}}"
    backbone: str
    ending: str = "onnx"

    @property
    def name(self) -> str:
        """The file's name, which says of which backbone it is wherever the file lies."""
        return name_of(str(self))


@dataclass(frozen=True)
class RemovalNotePath(WarehousePath):
    """That a piece of work is removed, and what its report or plan named, so that this outlives it by one retention."""

    form = f"{WORK}/retired/{{digest}}.json"
    digest: str


@dataclass(frozen=True)
class ChecksumsPath(WarehousePath):
    """The recorded SHA-256 of files whose names do not contain it."""

    form = f"{CHECKSUMS}/{{digest}}.json"
    digest: str


@dataclass(frozen=True)
class ViewPath(WarehousePath):
    """A file of the view that the pages read: a part of it, or the pointer that names the newest parts."""

    form = f"{WORK}/view/{{name}}"
    name: str = "current.json"


@dataclass(frozen=True)
class WorkPath(WarehousePath):
    """A file of one piece of work, in the folder that its digest names."""

    work: str


@dataclass(frozen=True)
class ReportPath(WorkPath):
    """The report of a finished piece of work; created once."""

    form = f"{WORK}/{{work}}/report.json"


@dataclass(frozen=True)
class ProgressPath(WorkPath):
    """A running count of one worker task, in the folder of its job's process; never data."""

    form = f"{_PROGRESS}/{{process}}/{{name}}"
    process: str
    name: str


@dataclass(frozen=True)
class AttemptPath(WorkPath):
    """An attempt's event, `claimed`, `started` or `ended`; created once."""

    form = f"{_ATTEMPTS}/{{attempt:06d}}/{{event}}.json"
    attempt: int
    event: str


@dataclass(frozen=True)
class ScratchPath(WorkPath):
    """What one process writes on the way to its tables; the name may have elements of its own."""

    form = f"{WORK}/{{work}}/scratch/{{process}}/{{name}}"
    process: str
    name: str


@dataclass(frozen=True)
class FaultPath(WorkPath):
    """What a job at a piece of work last failed on, rewritten by the next that fails."""

    form = f"{WORK}/{{work}}/scratch/fault.json"


@dataclass(frozen=True)
class ModelPath(WarehousePath):
    """A fitted model's one file, which the table of its kind names."""

    form = "{table}/{model_id}/model.parquet"
    model_id: str
    table: str = MODELS.name


@dataclass(frozen=True)
class StagedPath(WarehousePath):
    """A file of a table's partition, staged in a folder that is fresh for one process.

    Attributes:
        table: the table.
        partition: the values of the table's partition columns, in their order.
        work: the piece of work that staged it; None for the few rows that the Airflow side writes itself.
        process: the folder's name, which one process drew.
        name: the file's name.
    """

    table: Table
    partition: tuple[str, ...]
    work: str | None
    process: str
    name: str

    def __post_init__(self) -> None:
        if len(self.partition) != len(self.table.partition_by):
            raise ValueError(f"{self.table.name} is partitioned by {self.table.partition_by}, not by {self.partition}")

    def __str__(self) -> str:
        return "/".join([partition_folder(self.table, self.partition), *filter(None, (self.work, self.process, self.name))])


def parse(path: str) -> WarehousePath | None:
    """Return the values in a path that a function of this module, or `str` of a class, built; None for any other path."""
    elements = path.split("/")
    if not _NO_NAMES.isdisjoint(elements):
        return None
    found = (_parsed(kind, pattern, path) for kind, pattern in _PATTERNS.get(elements[0], {}).items())
    return next((one for one in found if one is not None), None) or _parsed_staged(elements[0], path)


def _parsed(kind: type[WarehousePath], pattern: re.Pattern[str], path: str) -> WarehousePath | None:
    match = pattern.fullmatch(path)
    if match is None:
        return None
    values: dict[str, Any] = match.groupdict()
    found = kind(**{name: int(value) if name == "attempt" else value for name, value in values.items()})
    return found if str(found) == path else None


def _parsed_staged(folder: str, path: str) -> StagedPath | None:
    for table, pattern in _STAGED.get(folder, ()):
        if match := pattern.fullmatch(path):
            *partition, work, process, name = match.groups()
            return StagedPath(table, tuple(partition), work, process, name)
    return None


def _pattern_of(form: str) -> re.Pattern[str]:
    found = ""
    for text, name, _, _ in Formatter().parse(form):
        found += re.escape(text) + (f"(?P<{name}>{_FIELDS.get(name, '[^/]+')})" if name else "")
    return re.compile(found, re.DOTALL)


def _staged_pattern_of(table: Table) -> re.Pattern[str]:
    values = "".join(f"/{re.escape(name)}=([^/]+)" for name in table.partition_by)
    return re.compile(f"{re.escape(table.name)}{values}/(?:({_SHA256})/)?({_PROCESS})/(.+)", re.DOTALL)


_KINDS = (
    *(ManifestPath, ProjectionPlanPath, ModelPlanPath, BackbonePath, RemovalNotePath, ChecksumsPath, ViewPath),
    *(ReportPath, ProgressPath, AttemptPath, ScratchPath, FaultPath, ModelPath),
)
_CHECKSUM = re.compile(r"(?<![^/])\.([^/]+)\.crc$")
_NO_NAMES = frozenset(("", ".", ".."))
# By a path's first element: cleaning parses each path of a warehouse.
_PATTERNS = {
    folder: {kind: _pattern_of(kind.form) for kind in _KINDS if kind.form.startswith((f"{folder}/", "{"))}
    for folder in (WORK, MODELS.name, CLASSIFIERS.name)
}
_STAGED = {table.name: ((table, _staged_pattern_of(table)),) for table in TABLES}


def manifest_path(manifest_digest: str, name: str = "head.json") -> str:
    """File of one manifest: its head, or a part of a name."""
    return str(ManifestPath(manifest_digest, name))


def backbone_path(backbone: str) -> str:
    """File of a backbone's export."""
    return str(BackbonePath(backbone))


def report_path(work: str) -> str:
    """File of a finished piece of work's report; created once."""
    return str(ReportPath(work))


def model_path(model_id: str, table: Table = MODELS) -> str:
    """File of a fitted model, below the folder of its table."""
    return str(ModelPath(model_id, table.name))


def staged_path(table: Table, partition: tuple[str, ...], work: str | None, process: str, name: str) -> str:
    """File of a table's partition that no table names yet; `work` is None for the rows that the Airflow side writes."""
    return str(StagedPath(table, partition, work, process, name))


def progress_folder(work: str) -> str:
    """Folder of the running counts of a piece of work: one folder for each process; each worker task rewrites its own file."""
    return _PROGRESS.format(work=work)


def attempts_folder(work: str) -> str:
    """Folder of the attempts at a piece of work, where its jobs outlive their submitter: a folder each."""
    return _ATTEMPTS.format(work=work)


def partition_folder(table: Table, values: tuple[str, ...]) -> str:
    """Folder of a table's files with these values of its first partition columns; the table's own without values."""
    hive = (f"{name}={value}" for name, value in zip(table.partition_by[: len(values)], values, strict=True))
    return "/".join([table.name, *hive])


def table_path(table: Table, relative: str) -> str:
    """File of a table, of its path relative to the table's folder, as the Delta log has it."""
    return f"{table.name}/{relative}"


def relative_to_table(table: Table, path: str) -> str:
    """Return the path relative to the table's folder; raise ValueError when it lies elsewhere."""
    folder = f"{table.name}/"
    if not path.startswith(folder):
        raise ValueError(f"{path!r} is not below {folder}")
    return path.removeprefix(folder)


def data_file_of_checksum(path: str) -> str:
    """Return the file that a checksum is of, `a/.x.crc` (Hadoop's) of `a/x`, `x.sha256` of `x.onnx`; else the path itself."""
    return _CHECKSUM.sub(r"\1", path).removesuffix(".sha256") + ".onnx" * path.endswith(".sha256")


def random_element() -> str:
    """Return a folder name that no other process draws."""
    return secrets.token_hex(8)
