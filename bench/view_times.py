"""How long a refresh of the pages' view takes, and how large the view is: `python bench/view_times.py [batches ...]`.

The tables hold one version of each batch. Prints the wall seconds of a first build, of a refresh that finds one batch more,
and of reading the view as an api-server does.
"""

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from orchard.pages.shown_view import BatchQuery, ViewReader
from orchard.reporting.view_refresh import refresh_view
from orchard.settings import Settings
from orchard.tables.batch_versions import version_key
from orchard.tables.commit_rule import Change, Tables
from orchard_jobs.contract.columns import FEATURES, QUARANTINE, RUNS

_BEGIN = datetime(2015, 1, 1, tzinfo=UTC)
_A_COMMIT = 1000


def publish(tables: Tables, backbone: str, numbers: range) -> None:
    """Commit batches to the three tables, many at once, the way that publishing does one."""
    changes: dict[Any, list[Change]] = {QUARANTINE: [], FEATURES: [], RUNS: []}
    for number in numbers:
        batch_id = f"{_BEGIN + timedelta(hours=number):%Y-%m-%d-%H}"
        digest = hashlib.sha256(batch_id.encode()).hexdigest()
        partition = (backbone, batch_id)
        key = version_key(backbone, batch_id)
        staged = tables.stage(RUNS, [_row(digest, number)], partition)
        changes[RUNS].append(Change(key, 1, digest, partition, (staged,)))
        for table in (QUARANTINE, FEATURES):
            changes[table].append(Change(key, 1, digest, partition, ()))
    for table, made in changes.items():
        tables.commit(table, made, "append")


def _row(digest: str, number: int) -> dict[str, Any]:
    counts = {"listed": 100, "featurized": 98, "reused": 0, "quarantined": 2, "missing": 0, "network_runs": 98}
    versions = {"version": 1, "features_version": 1, "quarantine_version": 1, "pca_version": None}
    return {
        "manifest_digest": digest,
        "run_id": f"scheduled__{number}",
        **counts,
        **versions,
        "model_id": None,
        "target": "local",
        "engine": "onnx",
        "job_ids": [f"local-{number}"],
        "jobs_version": "0.1.0",
        "audit_verdict": "passed",
        "featurize_seconds": 10.0,
        "reduce_seconds": None,
        "published_at": _BEGIN,
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall seconds of a piece of work, and what it returns."""
    begin = time.perf_counter()
    done = work()
    return time.perf_counter() - begin, done


def measure(batches: int, folder: str) -> str:
    """Return one line of the table."""
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": folder, "ORCHARD_BATCH_KEY_FORMAT": "%Y-%m-%d-%H"})
    tables = Tables.at(settings.warehouse)
    tables.create_all()
    for first in range(0, batches, _A_COMMIT):
        publish(tables, settings.backbone.id, range(first, min(first + _A_COMMIT, batches)))
    build, _ = timed(lambda: refresh_view(tables, settings, _BEGIN, is_anew=True))
    publish(tables, settings.backbone.id, range(batches, batches + 1))
    refresh, pointer = timed(lambda: refresh_view(tables, settings, _BEGIN))
    reader = ViewReader(tables.warehouse)
    load, shown = timed(reader.newest)
    assert shown is not None
    first_answer, _ = timed(lambda: shown.find_batches(BatchQuery()))
    answer, _ = timed(lambda: shown.find_batches(BatchQuery(sort="seconds")))
    size = (tables.warehouse.size(pointer.versions) or 0) / 1e6
    return f"{batches:>9,} {build:>8.2f} {refresh:>9.2f} {load:>7.2f} {first_answer:>8.3f} {answer:>8.3f} {size:>7.2f}"


def main() -> None:
    """Print the table."""
    print("  batches  build s refresh s  load s  first s answer s      MB")
    for batches in [int(text) for text in sys.argv[1:]] or [1_000, 10_000, 100_000]:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(batches, folder), flush=True)


if __name__ == "__main__":
    main()
