"""Reads the warehouse: progress of jobs, the numbers of published batches, and what the model lacks.

The one module of the sandbox that reads the warehouse.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchard.models import refit
from orchard.models.captured import captured_shares
from orchard.models.model import current_promotion
from orchard.models.recorded_evaluations import accuracies
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import RUNS
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.layout import progress_folder
from orchard_jobs.contract.locations import local_path
from orchard_jobs.errors import NoTableError, OrchardError

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.stack.runs import Count

T = TypeVar("T")
_COUNTS = ("listed", "featurized", "reused", "quarantined")


@dataclass(frozen=True)
class PublishedBatch:
    """The numbers of one published batch version.

    Attributes:
        captured: the current model's share of its variance.
        accuracy: the share of its predictions that is right, as text; None where nothing tells.
    """

    listed: int
    featurized: int
    reused: int
    quarantined: int
    captured: float | None
    accuracy: str | None = None

    @property
    def has_no_good_image(self) -> bool:
        """Whether every listed image was set aside."""
        return 0 < self.listed == self.quarantined


def running_count(environment: Mapping[str, str], plan: Mapping[str, Any], stage: str) -> Count | None:
    """Return the count of the stage's job that works on a plan; None when there is none, or the warehouse is not on this disk."""
    folder = local_path(environment["ORCHARD_WAREHOUSE"])
    if folder is None:
        return None
    work = work_digest(plan["input_digest"], plan["backbone"], stage)
    return read_counts(Path(folder, progress_folder(work)))


def read_counts(folder: Path) -> Count | None:
    """Return the sum over the worker tasks of the latest process; a file that is being rewritten waits for the next look."""
    done = total = 0
    folders = [process for process in folder.glob("*") if process.is_dir()]
    if not folders:
        return None
    for file in max(folders, key=lambda process: process.stat().st_ctime_ns).glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            count = json.loads(file.read_text())
            done, total = done + int(count["done"]), max(total, int(count["total"]))
    return Count(min(done, total), total) if total else None


def pending_work(environment: Mapping[str, str]) -> dict[str, str]:
    """Describe what each model's DAG still has to do, by its id; nothing when the current models cover every published batch."""
    return _read(environment, refit.pending_works, {})


def published_batches(environment: Mapping[str, str]) -> dict[str, PublishedBatch]:
    """Return the numbers of every batch's current version, by batch."""
    return _read(environment, _published, {})


def _published(tables: Tables, settings: Settings) -> dict[str, PublishedBatch]:
    rows = sorted(tables.rows(RUNS, backbone=settings.backbone.id), key=lambda row: row["version"])
    promotion = current_promotion(tables, settings.backbone.id)
    shares = captured_shares(tables, promotion.model_id) if promotion else {}
    right = {version: found.to_text() for version, found in accuracies(tables).items()}
    versions = {row["batch_id"]: (row["batch_id"], row["manifest_digest"]) for row in rows}
    return {
        row["batch_id"]: PublishedBatch(
            **{name: row[name] for name in _COUNTS},
            captured=shares.get(versions[row["batch_id"]]),
            accuracy=right.get(versions[row["batch_id"]]),
        )
        for row in rows
    }


def _read(environment: Mapping[str, str], read: Callable[[Tables, Settings], T], without_tables: T) -> T:
    settings = Settings.from_environment(environment)
    try:
        return read(Tables.at(settings.warehouse), settings)
    except NoTableError:
        return without_tables
    except OrchardError as error:
        raise SandboxError(str(error)) from error
