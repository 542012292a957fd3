"""What the pages' view shows, as tests compare it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from orchard.reporting.view import VERSIONS, ViewPointer, read_pointer, read_versions
from orchard.settings import Settings
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.layout import ViewPath
from orchard_jobs.parquet import pack
from orchard_jobs.storage import Warehouse


def shown_versions(warehouse: Warehouse) -> pa.Table:
    """Return the rows of the newest view."""
    pointer = read_pointer(warehouse)
    assert pointer is not None
    return read_versions(warehouse, pointer)


def shown_rows(warehouse: Warehouse) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = shown_versions(warehouse).to_pylist()
    return rows


def shown_states(warehouse: Warehouse) -> dict[str, str]:
    """Return the state of each batch."""
    return {row["batch_id"]: row["state"] for row in shown_rows(warehouse) if row["is_current"]}


def generate_view(settings: Settings, batches: int) -> ViewPointer:
    """Write the view of a warehouse of so many batches, an hour each; every hundredth is refused."""
    warehouse, begin = Warehouse.at(settings.warehouse), datetime(2015, 1, 1, tzinfo=UTC)
    rows = [_generated(begin + timedelta(hours=number), number) for number in range(batches)]
    part = str(ViewPath("generated.parquet"))
    warehouse.create(part, pack(pa.Table.from_pylist(rows, VERSIONS)))
    pointer = ViewPointer(settings.backbone.id, begin.isoformat(), batches, (), part, part, part)
    warehouse.rewrite(str(ViewPath()), pointer.to_json().encode())
    return pointer


def _generated(moment: datetime, number: int) -> dict[str, Any]:
    counts = {"listed": number % 700, "featurized": number % 600, "reused": 0, "quarantined": number % 7, "missing": number % 3}
    return {
        "batch_id": f"{moment:%Y-%m-%dT%H}",
        "day": moment.date(),
        "is_current": True,
        "state": "published" if number % 100 else "refused",
        "why": "" if number % 100 else f"quarantined_share: {number} images are quarantined",
        "manifest_digest": digest_of(number),
        "run_id": f"scheduled__{moment.isoformat()}",
        "version": 1,
        **counts,
        "network_runs": number % 600,
        "model_id": "pca-0123456789abcdef",
        "target": "local",
        "engine": "onnx",
        "job_ids": [f"local-{number}"],
        "jobs_version": "0.1.0",
        "audit_verdict": "passed" if number % 5 else f"passed; {number % 7} images are quarantined",
        "featurize_seconds": number % 90 + 0.5,
        "reduce_seconds": 1.5,
        "published_at": moment,
        "source": f"runs/{number}",
    }
