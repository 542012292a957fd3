"""featurize: a manifest becomes the batch's next version: features, quarantine rows, moments and class moments, all staged.

Every image goes through the backbone once: a worker writes the rows in the same pass that computes them, so no Spark action
can compute them again. Rows that are kept or reused are copied separately.
"""

import math
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby

from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.jobs import JobReport, StagedPartition
from orchard_jobs.contract.layout import manifest_path
from orchard_jobs.contract.manifest import Entry, ManifestHead, read_part, write_entries
from orchard_jobs.parquet import read_parquet
from orchard_jobs.stages.batch_moments import PartialMoments, has_moments, stage_moments
from orchard_jobs.stages.copied_rows import ROWS_PER_FILE, copy_kept, copy_vectors
from orchard_jobs.stages.featurize_task import FeaturizeTask, TaskResult, featurize_shard
from orchard_jobs.stages.spark_reader import BYTES_PER_SHARD, compute_from_spark
from orchard_jobs.stages.staging import OwnPaths, Staging, VersionWriter
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

# A task's good images are one features file, and a task is what a lost worker loses. From 65,536 images on there are about 64
# tasks, enough for a cluster, and they grow. Below, they are of up to 1,024: smaller ones cost a machine with two cores a
# turn-around each, larger ones would leave cores of a cluster idle. Tasks are alike in size, so two or four cores end together.
_SMALLEST_TASK, _TASKS_FOR_A_CLUSTER, _TASKS_AT_ONCE = 1024, 64, 4


def featurize(workers: Workers, warehouse: Warehouse, head: ManifestHead, work: str) -> JobReport:
    """Stage the batch version that a manifest describes.

    Args:
        workers: what the tasks run on.
        warehouse: where the manifest lies and the tables' files go.
        head: the manifest's head.
        work: the work digest, which names the folders.

    Returns:
        The report, not yet written.

    Raises:
        JobError: images could not be fetched for another reason than their absence, or the backbone failed.
    """
    staging = Staging(warehouse, OwnPaths(work))
    partition = (head.backbone.id, head.batch_id)
    partials = PartialMoments(staging.paths, head)
    # How many images are good is known once they are read: partial moments are written when there may be enough.
    on_file = partials.write if has_moments(head, head.listed + head.missing) else None
    good = VersionWriter(staging.writer(FEATURES, partition), head.digest, on_file)
    bad = VersionWriter(staging.writer(QUARANTINE, partition), head.digest)
    entries = _entries_by_action(warehouse, head)
    with staging.timed("network"):
        result = _compute(workers, staging, head, entries["compute"], (good, bad))
    with staging.timed("features"):
        kept = copy_kept(workers, head, head.features_files, "keep", good)
        known = [entry for path in result.known for entry in read_part(warehouse.read(path))]
        wanted = [*entries["reuse"], *known]
        reused = copy_vectors(workers, head.vector_files, wanted, staging.paths, good) if wanted else ()
        features = StagedPartition(FEATURES.name, partition, result.features + kept + reused)
    with staging.timed("quarantine"):
        kept = copy_kept(workers, head, head.quarantine_files, "keep_quarantined", bad)
        quarantine = StagedPartition(QUARANTINE.name, partition, result.quarantine + kept)
    with staging.timed("moments"):
        moments = stage_moments(workers, staging, partials, features) if has_moments(head, features.rows) else ()
    return replace(
        staging.report("featurize", head, workers.job_id, (features, quarantine, *moments)),
        counts={
            "listed": head.listed,
            "featurized": len(result.contents),
            "reused": features.rows - head.missing_good - len(result.contents),
            "quarantined": quarantine.rows - head.missing_quarantined,
            "missing": head.missing,
            "network_runs": result.tally.network_runs,
        },
        reasons=_reasons(warehouse, quarantine),
        network=asdict(result.tally),
    )


def _entries_by_action(warehouse: Warehouse, head: ManifestHead) -> dict[str, list[Entry]]:
    """Return the entries that are read or placed one by one; those that are kept are selected where their rows are read."""
    found: dict[str, list[Entry]] = {"compute": [], "reuse": []}
    for part in head.parts:
        for entry in read_part(warehouse.read(manifest_path(head.digest, part.name))):
            if entry.action in found:
                found[entry.action].append(entry)
    return found


def _compute(
    workers: Workers,
    staging: Staging,
    head: ManifestHead,
    entries: list[Entry],
    writers: tuple[VersionWriter, VersionWriter],
) -> TaskResult:
    """Put the entries to compute through the backbone, each once."""
    task = FeaturizeTask(
        head=head,
        features=writers[0],
        quarantine=writers[1],
        paths=staging.paths,
        total=len(entries),
    )
    if workers.source == "spark":
        return compute_from_spark(workers.spark, task, _shards(entries, BYTES_PER_SHARD))
    paths = _write_shards(staging, _shards(entries))
    results = workers.run(len(paths), partial(featurize_shard, task=task, shards=paths))
    return sum(map(TaskResult.from_json, results), TaskResult())


def _shards(entries: list[Entry], largest_bytes: float = math.inf) -> list[list[Entry]]:
    """Return the entries to compute in shards, a task each. Entries of one group share a shard, whatever its size."""
    largest = min(ROWS_PER_FILE, max(_SMALLEST_TASK, len(entries) // _TASKS_FOR_A_CLUSTER))
    tasks = _TASKS_AT_ONCE * math.ceil(len(entries) / (_TASKS_AT_ONCE * largest))
    shards: list[list[Entry]] = []
    size = 0
    grouped = sorted(entries, key=lambda entry: (entry.group, entry.image_uri))
    for _, group in groupby(grouped, key=lambda entry: entry.group):
        if not shards or len(shards[-1]) >= math.ceil(len(entries) / tasks) or size >= largest_bytes:
            shards.append([])
            size = 0
        of_group = list(group)
        size += sum(entry.size_bytes for entry in of_group)
        shards[-1].extend(of_group)
    return shards


def _write_shards(staging: Staging, shards: list[list[Entry]]) -> tuple[str, ...]:
    """Write the shards, a file each; return the paths."""
    paths = tuple(staging.paths.scratch("shards", f"{index:05d}.jsonl.gz") for index in range(len(shards)))
    for path, shard in zip(paths, shards, strict=True):
        staging.warehouse.create(path, write_entries(shard))
    return paths


def _reasons(warehouse: Warehouse, quarantine: StagedPartition) -> dict[str, int]:
    found: Counter[str] = Counter()
    for file in quarantine.files:
        found.update(read_parquet(warehouse, file.path).column("reason").to_pylist())
    return dict(sorted(found.items()))
