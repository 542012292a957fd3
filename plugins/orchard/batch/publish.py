"""Publish a validated batch version: Delta commits in a fixed order, `runs` last. A retry rolls forward."""

from dataclasses import dataclass
from datetime import UTC, datetime

from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, PREDICTIONS
from orchard_jobs.contract.columns import FEATURES, MOMENTS, PCA_FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.contract.jobs import JobReport, StagedPartition
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import SupersededError

from orchard.models.captured import record_captured
from orchard.models.recorded_evaluations import record_evaluations
from orchard.tables.batch_versions import version_key
from orchard.tables.commit_rule import Change, CommitState, Tables, version_number_in
from orchard.tables.delta_log import Mode


@dataclass(frozen=True)
class RunFacts:
    """What a `runs` row records of the run that its reports do not hold."""

    run_id: str
    target: str
    audit_verdict: str


@dataclass(frozen=True)
class PublishedTableVersions:
    """What holds a published batch version: the Delta version of each table, and the batch version's own number."""

    number: int
    features: int
    quarantine: int
    pca_features: int | None
    predictions: int | None
    runs: int


def publish_batch(
    tables: Tables, head: ManifestHead, featurized: JobReport, reduced: JobReport | None, facts: RunFacts
) -> PublishedTableVersions:
    """Publish one batch version: quarantine, features, pca_features, predictions, then the `runs` row that makes it exist.

    Every commit follows the one rule of `Tables.commit`, so two runs at once make one set of rows and a retry commits what an
    earlier try left.

    Raises:
        SupersededError: another run published a version of the same or a higher number; nothing more is written.
        JobError: a staged file is gone or damaged.
    """
    (quarantine,) = featurized.of_table(QUARANTINE.name)
    (features,) = featurized.of_table(FEATURES.name)
    quarantine_version = _commit(tables, QUARANTINE, _change(head, quarantine))
    features_version = _commit(tables, FEATURES, _change(head, features))
    pca_version = predictions_version = None
    if reduced is not None:
        record_captured(tables, reduced.captured)
        record_evaluations(tables, reduced.evaluations)
        # A model's own DAG may have made rows of a later version already: then they are kept, and this version is superseded.
        for staged in reduced.of_table(PCA_FEATURES.name):
            pca_version = _commit(tables, PCA_FEATURES, _change(head, staged, scope=staged.partition[0]))
        for staged in reduced.of_table(PREDICTIONS.name):
            predictions_version = _commit(tables, PREDICTIONS, _change(head, staged, scope=staged.partition[0]))
    row = _runs_row(head, featurized, reduced, facts) | {
        "features_version": features_version,
        "quarantine_version": quarantine_version,
        "pca_version": pca_version,
    }
    partition = (head.backbone.id, head.batch_id)
    staged = StagedPartition(RUNS.name, partition, (tables.stage(RUNS, [row], partition),))
    runs_version = _commit(tables, RUNS, _change(head, staged), mode="append")
    # Caches come last: what a run that was cut off did not commit is computed from the features.
    for table in (MOMENTS, CLASS_MOMENTS):
        for staged in featurized.of_table(table.name):
            tables.commit(table, [_change(head, staged)])
    versions = (features_version, quarantine_version, pca_version, predictions_version, runs_version)
    return PublishedTableVersions(head.number, *versions)


def _change(head: ManifestHead, staged: StagedPartition, scope: str | None = None) -> Change:
    key = version_key(scope or head.backbone.id, head.batch_id)
    return Change(key, head.number, head.digest, staged.partition, staged.files)


def _commit(tables: Tables, table: Table, change: Change, mode: Mode = "overwrite") -> int:
    committed = tables.commit(table, [change], mode)
    if committed.states[0] is CommitState.SUPERSEDED:
        held = version_number_in(tables.load(table), change.key)
        raise SupersededError(
            f"{table.name} holds version {held} of {change.key}, this run made version {change.number} of manifest "
            f"{change.digest[:12]}: a later run of the batch has already published; its rows are kept"
        )
    return committed.version


def _runs_row(head: ManifestHead, featurized: JobReport, reduced: JobReport | None, facts: RunFacts) -> dict[str, object]:
    counts = featurized.counts
    reports = [report for report in (featurized, reduced) if report is not None]
    return {
        "manifest_digest": head.digest,
        "run_id": facts.run_id,
        "version": head.number,
        **{name: counts[name] for name in ("listed", "featurized", "reused", "quarantined", "missing", "network_runs")},
        "model_id": head.model.model_id if head.model and reduced else None,
        "target": facts.target,
        "engine": head.backbone.engine,
        "job_ids": [report.job_id for report in reports],
        "jobs_version": featurized.jobs_version,
        "audit_verdict": facts.audit_verdict,
        "featurize_seconds": sum(featurized.seconds.values()),
        "reduce_seconds": sum(reduced.seconds.values()) if reduced else None,
        "published_at": datetime.now(UTC),
    }
