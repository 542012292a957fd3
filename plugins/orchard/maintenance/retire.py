"""The backbones whose rows a warehouse holds, and the retirement of one that is no longer current.

Another ORCHARD_BACKBONE, engine, weights or views make a new backbone with models and rows of its own. The rows of the former one
stay readable until it is retired.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS
from orchard_jobs.contract.columns import FEATURES, MOMENTS, QUARANTINE, RUNS, Table
from orchard_jobs.errors import ConfigurationError, JobError

from orchard.models.kinds import KINDS, Kind
from orchard.settings import Settings
from orchard.tables.batch_versions import version_key
from orchard.tables.commit_rule import NO_DIGEST, Change, CommitState, Tables, version_number_in

# In the order of a publish; `runs` last, so that its rows name the batches until all else is gone.
_WITH_ROWS = (QUARANTINE, FEATURES, *(kind.rows for kind in KINDS), MOMENTS, CLASS_MOMENTS, RUNS)


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
    of_model = {model_id: its for kind in KINDS for model_id, its in _models(tables, kind)}
    for table in _WITH_ROWS:
        for file in tables.load(table).files():
            values = file.partition
            backbone = values["backbone"] if "backbone" in values else of_model.get(values["model_id"])
            if backbone is not None:
                rows.setdefault(backbone, Counter())[table.name] += file.rows
                batches.setdefault(backbone, set()).add(values["batch_id"])
    return tuple(BackboneRows(one, len(batches[one]), dict(rows[one])) for one in sorted(rows))


def retire_backbone(tables: Tables, settings: Settings, backbone: str) -> None:
    """Remove all rows of a backbone and of its models from the tables.

    Each batch gets an empty version of the next number, in the order of a publish and without its `runs` row. So a run that is
    publishing an older version is superseded. If a retirement is cut off, run it again to finish it. If the backbone becomes
    current again, its batches are computed again under higher numbers.

    Its `models`, `promotions`, `pins`, `captured` and `model_runs` rows stay as a record. A clean-up removes the files.

    Raises:
        ConfigurationError: it is the current backbone, or no table has a row of it.
        JobError: a run published a version meanwhile; all else is gone.
    """
    if backbone == settings.backbone.id:
        raise ConfigurationError(
            f"{backbone} is the current backbone and cannot be retired: first set another one, or its engine, weights or views"
        )
    models = {kind.rows: [model_id for model_id, its in _models(tables, kind) if its == backbone] for kind in KINDS}
    scopes = {table: models.get(table, [backbone]) for table in _WITH_ROWS}
    numbers = _next_numbers(tables, scopes)
    if not numbers:
        there = ", ".join(one.backbone for one in backbones(tables)) or "none"
        raise ConfigurationError(f"no table has rows of backbone {backbone!r}; there are: {there}")
    published: set[str] = set()
    for table in _WITH_ROWS:
        pairs = [(scope, batch_id) for scope in sorted(scopes[table]) for batch_id in sorted(numbers.keys() - published)]
        changes = [Change(version_key(*pair), numbers[pair[1]], NO_DIGEST, pair) for pair in pairs]
        states = tables.commit(table, changes).states
        published |= {pair[1] for pair, one in zip(pairs, states, strict=True) if one is CommitState.SUPERSEDED}
    if published:
        raise JobError(f"{backbone}: a run published {', '.join(sorted(published))} meanwhile: run the command again")


def _models(tables: Tables, kind: Kind) -> list[tuple[str, str]]:
    """Return (id, backbone) of the models of a kind."""
    return [(row["model_id"], row["backbone"]) for row in tables.rows(kind.models, ("model_id", "backbone"))]


def _next_numbers(tables: Tables, scopes: Mapping[Table, Collection[str]]) -> dict[str, int]:
    """Return by batch, of those with rows under the scopes of some table, the number above all that the tables hold of it."""
    snapshots = {table: tables.load(table) for table in scopes}
    partitions = {
        (file.partition[table.partition_by[0]], file.partition["batch_id"])
        for table, snapshot in snapshots.items()
        for file in snapshot.files()
    }
    wanted = {scope for of_table in scopes.values() for scope in of_table}
    batches = {batch_id for scope, batch_id in partitions if scope in wanted}
    return {
        batch_id: 1
        + max(
            version_number_in(snapshots[table], version_key(scope, batch_id))
            for table, these in scopes.items()
            for scope in these
        )
        for batch_id in batches
    }
