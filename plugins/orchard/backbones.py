"""The backbones whose rows a warehouse holds, and the retirement of one that is no longer current.

Another ORCHARD_BACKBONE, engine or weights begin a line of models and rows of their own; the old line stays readable until it
is retired.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchard_jobs.contract.columns import CAPTURED, FEATURES, MODELS, MOMENTS, PCA_FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.errors import ConfigurationError

from orchard.settings import Settings
from orchard.tables import NOTHING, Change, Tables
from orchard.versions import key_of

_BY_BACKBONE = (RUNS, MOMENTS, QUARANTINE, FEATURES)


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
    for table in (*_BY_BACKBONE, PCA_FEATURES):
        for file in tables.load(table).files():
            values = file.partition
            backbone = values["backbone"] if "backbone" in values else of_model.get(values["model_id"])
            if backbone is not None:
                rows.setdefault(backbone, Counter())[table.name] += file.rows
                batches.setdefault(backbone, set()).add(values["batch_id"])
    return tuple(BackboneRows(one, len(batches[one]), dict(rows[one])) for one in sorted(rows))


def retire_backbone(tables: Tables, settings: Settings, backbone: str) -> None:
    """Take all rows of a backbone and of its models out of the tables, and forget its batch versions' numbers.

    Its `models`, `promotions`, `pins`, `captured` and `model_runs` rows stay as the record of what was. The files go when the
    tables are cleaned. `runs` goes first, so that a batch version ceases to exist before its rows go, and `features` last,
    which names the batches: cut off anywhere, it is finished by being run again. Should the backbone become current again,
    its batches are computed anew.

    Raises:
        ConfigurationError: it is the current backbone, or there is none of this id.
    """
    if backbone == settings.backbone.id:
        raise ConfigurationError(
            f"{backbone} is the current backbone: only one that ORCHARD_BACKBONE no longer names can be retired"
        )
    batches = _batches_of(tables, backbone)
    models = sorted({row["model_id"] for row in tables.rows(MODELS, ("model_id", "backbone")) if row["backbone"] == backbone})
    if not batches and not models:
        there = ", ".join(one.backbone for one in backbones(tables)) or "none"
        raise ConfigurationError(f"no table has rows of backbone {backbone!r}; there are: {there}")
    runs, *others = _BY_BACKBONE
    _take_out(tables, runs, [backbone], batches)
    projected = batches | _projected(tables, models)
    _take_out(tables, PCA_FEATURES, models, projected)
    # Its rows stay, but versions that are numbered from 1 again must not find the old numbers there.
    keys = [key_of(model_id, batch_id) for model_id in models for batch_id in sorted(projected)]
    tables.commit(CAPTURED, [Change(key, 0, NOTHING) for key in keys], "append")
    for table in others:
        _take_out(tables, table, [backbone], batches)


def _batches_of(tables: Tables, backbone: str) -> set[str]:
    return {file.partition["batch_id"] for table in _BY_BACKBONE for file in tables.load(table).files(backbone=backbone)}


def _projected(tables: Tables, models: Iterable[str]) -> set[str]:
    snapshot = tables.load(PCA_FEATURES)
    return {file.partition["batch_id"] for model_id in models for file in snapshot.files(model_id=model_id)}


def _take_out(tables: Tables, table: Table, scopes: Iterable[str], batches: Iterable[str]) -> None:
    """Empty the partitions (scope, batch) of a table, in one commit."""
    pairs = [(scope, batch_id) for scope in scopes for batch_id in sorted(batches)]
    tables.commit(table, [Change(key_of(*pair), 0, NOTHING, pair) for pair in pairs])
