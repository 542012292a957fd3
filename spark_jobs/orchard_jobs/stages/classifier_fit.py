"""The fit of a classifier on published features: read once for the folds' class moments and the rows that are scored.

The worker tasks take four steps. They gather the class moments and the scored rows of each fold from the features files, and
merge those of a fold. They count the right rows of a fold for each shrinkage, and score them at the chosen one.
The driver holds the class moments of the folds, and the scores of about 20,000 rows at most.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from orchard_jobs.classifier.class_moments import ClassMoments, merge, merge_all
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.held_out import (
    FOLDS,
    NO_ROWS,
    SCORED_ROWS,
    HeldOutRows,
    HeldOutScores,
    all_but,
    calibrate,
    choose_shrinkage,
    count_right,
    fold_of_content,
    is_scored,
    score_held_out,
)
from orchard_jobs.classifier.labelled_rows import LabelRule, from_columns, rule_of_version, to_columns
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier, create_classifier, read_classifier
from orchard_jobs.contract.jobs import BatchVersion, ClassifierFit
from orchard_jobs.errors import JobError
from orchard_jobs.parquet import pack, read_parquet
from orchard_jobs.stages.staging import OwnPaths, Staging, vectors
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse

# Each gathering task writes the class moments of every fold, 8 MB of 131 classes: few tasks, each with many files.
_GATHERING_TASKS = 8
_COLUMNS = ("image_uri", "content_sha256", "label", "features")


@dataclass(frozen=True)
class FitTask:
    """What the tasks of a fit are given; can be pickled to a worker.

    Attributes:
        warehouse: where everything lies.
        paths: where scratch files go.
        backbone: full name of the backbone of the features.
        fit: the fit.
        files: (number of the version, path) of each features file, in the order of the versions.
    """

    warehouse: Warehouse
    paths: OwnPaths
    backbone: str
    fit: ClassifierFit
    files: tuple[tuple[int, str], ...]

    @property
    def folds(self) -> int:
        """Number of folds: at most one a batch where batches are held out."""
        return min(FOLDS, len(self.fit.versions)) if self.fit.held_out == "batches" else FOLDS

    @property
    def gathering_tasks(self) -> int:
        """Number of tasks that read features."""
        return min(_GATHERING_TASKS, len(self.files))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted(set(self.class_of.values())))

    @property
    def class_of(self) -> dict[str, str]:
        """The class of each label that has one."""
        return dict(self.fit.class_of)

    def fold_of_batch(self, version: int) -> int:
        """Return the fold of a batch version, where whole batches are held out."""
        return version % self.folds

    def class_moments_of(self, version: int) -> str | None:
        """Return the file of a batch version's class moments; None where the job sums up its rows."""
        return dict(self.fit.class_moments).get(self.fit.versions[version].batch_id)

    def scratch(self, what: str, *numbers: int) -> str:
        """Return the path of a scratch file of the fit: what it holds, of which fold, by which task."""
        return self.paths.scratch("fit", "-".join([what, *map(str, numbers)]))


def fit_classifier(workers: Workers, staging: Staging, backbone: str, plan: ClassifierFit) -> dict[str, int]:
    """Fit a classifier and write its file, unless an earlier try has; return what was counted.

    Args:
        workers: what the tasks run on.
        staging: where scratch files go.
        backbone: full name of the backbone of the features.
        plan: the fit.

    Returns:
        `held_out_rows` and `held_out_right`: held-out rows, and those that got their class. `compared`: held-out rows that the
        current classifier was not fitted on, of classes that it knows. `compared_right` and `compared_right_before`: those of
        them that the new one, and the current one, get right.

    Raises:
        JobError: no row could be held out, or the rows are such that no fit is possible.
    """
    files = tuple((number, path) for number, version in enumerate(plan.versions) for path in version.files)
    task = FitTask(staging.warehouse, staging.paths, backbone, plan, files)
    with staging.timed("gather"):
        workers.run(task.gathering_tasks, partial(_gather, task=task))
        workers.run(task.folds, partial(_merge_fold, task=task))
    try:
        with staging.timed("fit"):
            return _fit(workers, task)
    except ValueError as error:
        what = f"{plan.rows} labelled rows of {len(plan.versions)} batches"
        raise JobError(f"no classifier can be fitted on {what}: {error}") from error


def _fit(workers: Workers, task: FitTask) -> dict[str, int]:
    counted = [json.loads(text) for text in workers.run(task.folds, partial(_count_fold, task=task))]
    shrinkage = choose_shrinkage([right for _, right in counted])
    scoring = partial(_score_fold, task=task, shrinkage=shrinkage)
    compared = np.sum([json.loads(text) for text in workers.run(task.folds, scoring)], axis=0)
    held_out = _write(task, shrinkage)
    names = ("compared", "compared_right", "compared_right_before")
    counts = dict(zip(names, map(int, compared), strict=True))
    return {"held_out_rows": held_out.rows, "held_out_right": held_out.right} | counts


def _write(task: FitTask, shrinkage: float) -> HeldOut:
    """Fit on all folds, calibrate, and write the classifier's file; return how it did on held-out rows."""
    plan, scored = task.fit, [_read_scores(task, fold) for fold in range(task.folds)]
    right = sum(int(one.is_right.sum()) for one in scored)
    held_out = HeldOut(plan.held_out, task.folds, sum(len(one.truth) for one in scored), right)
    if not held_out.rows:
        raise ValueError("no image could be held out, so nothing can be calibrated: label more distinct images of each class")
    temperature, max_distance = calibrate(scored)
    moments = merge_all(_fold_moments(task))
    stored = StoredClassifier(
        model_id=plan.model.model_id,
        backbone=task.backbone,
        classifier=fit(classes_of(moments, task.class_of), shrinkage),
        n=moments.n,
        shrinkage=shrinkage,
        temperature=temperature,
        max_distance=max_distance,
        class_of=task.class_of,
        left_out=dict(plan.left_out),
        sources=tuple(sorted((version.batch_id, version.manifest_digest) for version in plan.versions)),
        held_out=held_out,
    )
    create_classifier(task.warehouse, plan.model.path, stored, moments)
    return held_out


def _gather(number: int, task: FitTask) -> str:
    """Sum up the rows of some features files by fold, and keep the rows that are scored, as scratch files."""
    size = -(-len(task.files) // task.gathering_tasks)
    moments: dict[int, ClassMoments] = {}
    kept: dict[int, list[pa.Table]] = {}
    for version, path in task.files[number * size : (number + 1) * size]:
        held = task.class_moments_of(version)
        if held is not None and path == task.fit.versions[version].files[0]:
            _add(moments, task.fold_of_batch(version), from_columns(read_parquet(task.warehouse, held)))
        for fold, rows in _by_fold(task, version, path):
            if held is None:
                _add(moments, fold, ClassMoments.of(vectors(rows.column("features")), rows.column("label").to_pylist()))
            kept.setdefault(fold, []).append(_scored_rows(task, version, rows))
    for fold, sums in moments.items():
        task.warehouse.create(task.scratch("moments", fold, number), pack(pa.table(to_columns(sums)), use_dictionary=False))
    for fold, tables in kept.items():
        task.warehouse.create(task.scratch("rows", fold, number), pack(pa.concat_tables(tables), use_dictionary=False))
    return ""


def _add(moments: dict[int, ClassMoments], fold: int, more: ClassMoments) -> None:
    moments[fold] = merge(moments.get(fold, ClassMoments.empty()), more)


def _by_fold(task: FitTask, version: int, path: str) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of a features file that count, by fold."""
    rows = read_parquet(task.warehouse, path).select(_COLUMNS)
    labels = _rule(task.warehouse, task.fit.versions[version], task.fit.unlabelled).labels_of(rows)
    counted = [place for place, label in enumerate(labels) if label is not None]
    rows = rows.take(pa.array(counted, pa.int64())) if len(counted) < rows.num_rows else rows
    if task.fit.held_out == "batches":
        folds = np.full(rows.num_rows, task.fold_of_batch(version))
    else:
        folds = np.array([fold_of_content(content) for content in rows.column("content_sha256").to_pylist()], np.int64)
    for fold in np.unique(folds):
        yield int(fold), rows.take(np.flatnonzero(folds == fold))


def _scored_rows(task: FitTask, version: int, rows: pa.Table) -> pa.Table:
    """Return the rows of classes that are of the share that is scored: features, class, and number of the version."""
    share, class_of = SCORED_ROWS / max(1, task.fit.rows), task.class_of
    contents, labels = (rows.column(name).to_pylist() for name in ("content_sha256", "label"))
    places = [
        place
        for place, (content, label) in enumerate(zip(contents, labels, strict=True))
        if label in class_of and is_scored(content, share)
    ]
    truth = pa.array([class_of[labels[place]] for place in places], pa.string())
    features = pa.chunked_array([rows.column("features").take(pa.array(places, pa.int64())).combine_chunks()])
    return pa.table({"features": features, "class": truth, "version": pa.repeat(pa.scalar(version), len(places))})


@lru_cache(maxsize=4)
def _rule(warehouse: Warehouse, version: BatchVersion, unlabelled: tuple[str, ...]) -> LabelRule:
    """Return which rows of a version count, looked up once a process."""
    return rule_of_version(warehouse, version, unlabelled)


def _merge_fold(fold: int, task: FitTask) -> str:
    """Merge the class moments of a fold."""
    paths = (task.scratch("moments", fold, number) for number in range(task.gathering_tasks))
    there = (path for path in paths if task.warehouse.size(path) is not None)
    merged = merge_all(from_columns(read_parquet(task.warehouse, path)) for path in there)
    task.warehouse.create(task.scratch("moments", fold), pack(pa.table(to_columns(merged)), use_dictionary=False))
    return ""


def _fold_moments(task: FitTask) -> list[ClassMoments]:
    return [from_columns(read_parquet(task.warehouse, task.scratch("moments", fold))) for fold in range(task.folds)]


def _held_out_rows(task: FitTask, fold: int) -> HeldOutRows:
    paths = (task.scratch("rows", fold, number) for number in range(task.gathering_tasks))
    there = (read_parquet(task.warehouse, path) for path in paths if task.warehouse.size(path) is not None)
    tables = [table for table in there if table.num_rows]
    if not tables:
        return NO_ROWS
    rows = pa.concat_tables(tables)
    truth = tuple(rows.column("class").to_pylist())
    return HeldOutRows(vectors(rows.column("features")), truth, rows.column("version").to_numpy())


def _count_fold(fold: int, task: FitTask) -> str:
    """Return as JSON how many rows of a fold can be scored, and how many are right, by shrinkage."""
    return json.dumps(count_right(all_but(_fold_moments(task), fold), task.class_of, _held_out_rows(task, fold)))


def _score_fold(fold: int, task: FitTask, shrinkage: float) -> str:
    """Write the scores of a fold's rows; return as JSON how the new and the current classifier do on rows new to both."""
    others, rows = all_but(_fold_moments(task), fold), _held_out_rows(task, fold)
    scored = score_held_out(others, task.class_of, shrinkage, task.class_names, rows)
    packed = io.BytesIO()
    np.savez(packed, scores=scored.scores, truth=scored.truth, distances=scored.distances)
    task.warehouse.create(task.scratch("scores", fold), packed.getvalue())
    return json.dumps(_compare(task, scored))


def _compare(task: FitTask, scored: HeldOutScores) -> tuple[int, int, int]:
    """Return the rows that the current classifier was not fitted on and whose class it knows, and those that each gets right."""
    if task.fit.current is None or not scored.rows.truth:
        return 0, 0, 0
    current = read_classifier(task.warehouse, task.fit.current)
    seen = {number for number, one in enumerate(task.fit.versions) if (one.batch_id, one.manifest_digest) in current.sources}
    known = set(current.classifier.classes)
    rows = scored.rows
    fair = [place for place, name in enumerate(rows.truth) if name in known and int(rows.sources[place]) not in seen]
    if not fair:
        return 0, 0, 0
    found = current.classifier.scores_of(rows.features[fair]).argmax(axis=1)
    right = sum(current.classifier.classes[best] == rows.truth[place] for best, place in zip(found, fair, strict=True))
    return len(fair), int(scored.is_right[fair].sum()), right


def _read_scores(task: FitTask, fold: int) -> HeldOutScores:
    with np.load(io.BytesIO(task.warehouse.read(task.scratch("scores", fold)))) as found:
        arrays: dict[str, Any] = {name: found[name] for name in ("scores", "truth", "distances")}
    return HeldOutScores(NO_ROWS, **arrays)
