"""The rules of the commit protocol, each switched off in turn: a history must see that it is missing.

Each fault names a seed whose history sees it. A change of the product can move it to another: `make soak` searches them all,
and prints the first seed of each.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from orchard.batch import publish
from orchard.landing_zone.batch_lock import BatchLock
from orchard.launchers.attempts import Attempts
from orchard.models import merged_moments, state
from orchard.models.kinds import PCA
from orchard.tables import commit_rule, reports
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Change, CommitState, Committed, Tables, version_number_in
from orchard.tables.delta_log import ConflictError
from orchard_jobs.audit.verdict import Verdict
from orchard_jobs.classifier import labelled_rows
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS
from orchard_jobs.contract.jobs import BatchVersion, StagedPartition
from orchard_jobs.parquet import open_parquet

from support import fake_jobs
from support.simulation.memory_log import MemoryLog
from support.simulation.planted_cleaning_faults import (
    marks_are_looked_at_once,
    reports_go_with_what_they_name,
    what_tables_name_is_cleaned,
    work_is_not_marked,
)
from support.simulation.store import SimulatedWarehouse

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class PlantedFault:
    """A rule of the protocol that is switched off.

    Attributes:
        plant: switches it off; its docstring says which rule it is.
        seed: a history that sees it.
    """

    plant: Callable[[Patch], None]
    seed: int

    def __str__(self) -> str:
        return self.plant.__name__


def create_overwrites(patch: Patch) -> None:
    """Of two writers of one path the first wins."""

    real = SimulatedWarehouse.create

    def create(warehouse: SimulatedWarehouse, path: str, content: bytes) -> bool:
        if not real(warehouse, path, content):
            warehouse.rewrite(path, content)
        return True

    patch.setattr(SimulatedWarehouse, "create", create)


def transactions_are_not_looked_at(patch: Patch) -> None:
    """A version is committed only where the table holds a lower one."""
    patch.setattr(Change, "state_in", lambda change, snapshot: CommitState.BEHIND)


def equal_numbers_count_as_own(patch: Patch) -> None:
    """A version of the same number is done only where it is of the same manifest."""
    real = Change.state_in

    def state_in(change: Change, snapshot: Any) -> CommitState:
        state = real(change, snapshot)
        is_equal = change.number > 0 and version_number_in(snapshot, change.key) == change.number
        return CommitState.DONE if is_equal else state

    patch.setattr(Change, "state_in", state_in)


def runs_are_committed_first(patch: Patch) -> None:
    """A version exists when its `runs` row does, so that row comes last."""
    publish_batch = publish.publish_batch

    def runs_first(tables: Tables, head: Any, featurized: Any, reduced: Any, facts: Any) -> Any:
        versions = {f"{table.name}_version": tables.load(table).version + 1 for table in (FEATURES, QUARANTINE)}
        row = publish._runs_row(head, featurized, reduced, facts) | versions | {"pca_version": None}
        partition = (head.backbone.id, head.batch_id)
        staged = StagedPartition(RUNS.name, partition, (tables.stage(RUNS, [row], partition),))
        publish._commit(tables, RUNS, publish._change(head, staged), mode="append")
        return publish_batch(tables, head, featurized, reduced, facts)

    patch.setattr("orchard.batch.run.publish_batch", runs_first)


def conflicts_are_retried_without_looking(patch: Patch) -> None:
    """A conflict says nothing about who won: load again, and apply the rule again."""

    def commit(tables: Tables, table: Any, changes: Any, mode: Any = "overwrite") -> Committed:
        snapshot = tables.load(table)
        states = tuple(change.state_in(snapshot) for change in changes)
        behind = [change for change, state in zip(changes, states, strict=True) if state is CommitState.BEHIND]
        if not behind:
            return Committed(snapshot.version, states)
        staged = [StagedPartition(table.name, change.partition, change.files) for change in behind]
        transactions = {name: number for change in behind for name, number in change.transactions.items()}
        while True:
            try:
                tables.log.commit(snapshot, table, staged, transactions, mode)
                return Committed(snapshot.version + 1, states)
            except ConflictError:
                snapshot = tables.load(table)

    patch.setattr(Tables, "commit", commit)


def staged_paths_are_used_again(patch: Patch) -> None:
    """No path is written twice."""
    for module in (commit_rule, fake_jobs):
        patch.setattr(module, "random_element", lambda: "always the same")


def superseded_versions_are_published(patch: Patch) -> None:
    """A version that another run's has superseded is published no further."""

    def commit(tables: Tables, table: Any, change: Change, mode: Any = "overwrite") -> int:
        return tables.commit(table, [change], mode).version

    patch.setattr(publish, "_commit", commit)


def versions_are_added_to_the_ones_before(patch: Patch) -> None:
    """A version replaces the one before."""
    commit = MemoryLog.commit

    def append(log: MemoryLog, snapshot: Any, table: Any, staged: Any, transactions: Any, mode: Any) -> None:
        commit(log, snapshot, table, staged, transactions, "append")

    patch.setattr(MemoryLog, "commit", append)


def numbers_come_from_runs_alone(patch: Patch) -> None:
    """The next number is above all that any table holds."""
    patch.setattr(BatchVersions, "highest_number", lambda versions, batch_id: versions._numbers(batch_id)[0])


def damaged_work_is_used_again(patch: Patch) -> None:
    """Work whose staged files were lost or damaged is done again under another number."""
    patch.setattr(reports, "is_intact", lambda warehouse, work: True)


def promises_are_kept_during_the_listing(patch: Patch) -> None:
    """A run withdraws its promise before it lists, so that a later upload gets a later run."""
    patch.setattr(BatchLock, "withdraw_promise", lambda lock: None)


def failed_attempts_are_made_again(patch: Patch) -> None:
    """A token names the attempt, so that a failed job is never reached again."""
    token = Attempts.token
    patch.setattr(Attempts, "token", lambda attempts, attempt: token(attempts, 1))


def moments_of_another_version_are_merged(patch: Patch) -> None:
    """Cached moments count only where they are of the very version."""
    of = merged_moments._of

    def any_version(warehouse: Any, version: BatchVersion, cached: Any) -> Any:
        for file in cached.get(version.batch_id, ()):
            with open_parquet(warehouse, file.path) as opened:
                version = replace(version, manifest_digest=opened.read(["manifest_digest"]).column(0)[0].as_py())
        return of(warehouse, version, cached)

    patch.setattr(merged_moments, "_of", any_version)


def images_count_under_their_former_label(patch: Patch) -> None:
    """The row of a missing image does not count where its content is listed under another label."""
    patch.setattr(labelled_rows, "moved_images", lambda warehouse, paths, missing: frozenset())


def batches_without_predictions_are_not_looked_up(patch: Patch) -> None:
    """What a model has no rows of is looked up in the table of its kind."""
    lacking_of = state.lacking_of

    def of_pca(tables: Any, kind: Any, model_ids: Any, versions: Any) -> Any:
        return lacking_of(tables, kind, model_ids, versions if kind is PCA else ())

    patch.setattr(state, "lacking_of", of_pca)


def logs_take_commits_from_old_snapshots(patch: Patch) -> None:
    """A commit is refused where another came since its snapshot."""
    commit = MemoryLog.commit

    def blind(log: MemoryLog, snapshot: Any, table: Any, staged: Any, transactions: Any, mode: Any) -> None:
        commit(log, log.load(table), table, staged, transactions, mode)

    patch.setattr(MemoryLog, "commit", blind)


def failed_audits_are_published(patch: Patch) -> None:
    """What fails its audit is not published."""
    patch.setattr(Verdict, "raise_if_failed", lambda verdict: None)


def unpublished_rows_are_readable(patch: Patch) -> None:
    """Of a version without its `runs` row nobody reads a row."""
    patch.setattr(BatchVersions, "features_files", lambda versions, batch_id: versions._features_by_batch.get(batch_id, ()))
    patch.setattr(BatchVersions, "quarantine_files", lambda versions, batch_id: versions._quarantine_by_batch.get(batch_id, ()))


PLANTED = tuple(
    PlantedFault(plant, seed)
    for plant, seed in (
        (create_overwrites, 8),
        (transactions_are_not_looked_at, 1),
        (equal_numbers_count_as_own, 15),
        (runs_are_committed_first, 23),
        (conflicts_are_retried_without_looking, 52),
        (staged_paths_are_used_again, 0),
        (superseded_versions_are_published, 15),
        (versions_are_added_to_the_ones_before, 8),
        (numbers_come_from_runs_alone, 35),
        (damaged_work_is_used_again, 118),
        (promises_are_kept_during_the_listing, 0),
        (failed_attempts_are_made_again, 30),
        (moments_of_another_version_are_merged, 660),
        (batches_without_predictions_are_not_looked_up, 19),
        (images_count_under_their_former_label, 245),
        (logs_take_commits_from_old_snapshots, 82),
        (failed_audits_are_published, 8),
        (reports_go_with_what_they_name, 350),
        (work_is_not_marked, 322),
        (marks_are_looked_at_once, 23),
        (unpublished_rows_are_readable, 23),
        (what_tables_name_is_cleaned, 0),
    )
)
