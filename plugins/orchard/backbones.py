"""The backbones whose rows a warehouse holds, and the retirement of one that is no longer current.

Another ORCHARD_BACKBONE, engine or weights begin a line of models and rows of their own; the old line stays readable until it
is retired.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import product

from orchard_jobs.contract.columns import FEATURES, MODELS, MOMENTS, PCA_FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.errors import ConfigurationError

from orchard.settings import Settings
from orchard.tables import NOTHING, Change, Tables
from orchard.versions import key_of

# In the order in which their rows go.
_WITH_ROWS = (RUNS, PCA_FEATURES, MOMENTS, QUARANTINE, FEATURES)


@dataclass(frozen=True)
class BackboneRows:
    """What a warehouse holds of one backbone.

    Attributes:
        backbone: its id.
        batches: batches with rows in any table.
        rows: rows by table; tables without any are left out.
    """

    backbone: str
    batches: int
    rows: dict[str, int]


def backbones(tables: Tables) -> tuple[BackboneRows, ...]:
    """Return every backbone that has rows, sorted by id."""
    rows: dict[str, Counter[str]] = {}
    batches: dict[str, set[str]] = {}
    of_model = {row["model_id"]: row["backbone"] for row in tables.rows(MODELS, ("model_id", "backbone"))}
    for table in _WITH_ROWS:
        for file in tables.load(table).files():
            values = file.partition
            backbone = values["backbone"] if "backbone" in values else of_model.get(values["model_id"])
            if backbone is not None:
                rows.setdefault(backbone, Counter())[table.name] += file.rows
                batches.setdefault(backbone, set()).add(values["batch_id"])
    return tuple(BackboneRows(one, len(batches[one]), dict(rows[one])) for one in sorted(rows))


def retire_backbone(tables: Tables, settings: Settings, backbone: str) -> None:
    """Take all rows of a backbone and of its models out of the tables, and forget its batch versions' numbers.

    Its `models`, `promotions`, `pins`, `captured` and `model_runs` rows stay as the record of what was; the files go when the
    tables are cleaned. Should the backbone become current again, its batches are computed anew.

    Cut off anywhere, it is finished by being run again: the numbers of keys without a row go first, while `runs` still names
    their batches; then the rows with their numbers, `runs` before all, so that a batch version ceases to exist before its rows.

    Raises:
        ConfigurationError: it is the current backbone, or no table has a row of it.
    """
    if backbone == settings.backbone.id:
        raise ConfigurationError(
            f"{backbone} is the current backbone: only one that ORCHARD_BACKBONE with engine and weights no longer names can go"
        )
    models = sorted(row["model_id"] for row in tables.rows(MODELS, ("model_id", "backbone")) if row["backbone"] == backbone)
    with_rows = {table.name: _partitions(tables, table, (backbone, *models)) for table in _WITH_ROWS}
    batches = {batch_id for pairs in with_rows.values() for _, batch_id in pairs}
    if not batches:
        there = ", ".join(one.backbone for one in backbones(tables)) or "none"
        raise ConfigurationError(f"no table has rows of backbone {backbone!r}; there are: {there}")
    projected = set(product(models, batches))
    for table in _WITH_ROWS:
        keys = projected if table is PCA_FEATURES else set(product([backbone], batches))
        _take_out(tables, table, keys - with_rows[table.name])
    for table in _WITH_ROWS:
        _take_out(tables, table, with_rows[table.name])


def _partitions(tables: Tables, table: Table, scopes: Collection[str]) -> set[tuple[str, str]]:
    """Return the partitions (scope, batch) of a table that have rows; a scope is a backbone's id or a model's."""
    found = (tuple(file.partition[name] for name in table.partition_by) for file in tables.load(table).files())
    return {(scope, batch_id) for scope, batch_id in found if scope in scopes}


def _take_out(tables: Tables, table: Table, pairs: Iterable[tuple[str, str]]) -> None:
    """Empty partitions of a table and set their numbers back, in one commit."""
    tables.commit(table, [Change(key_of(*pair), 0, NOTHING, pair) for pair in sorted(pairs)])
