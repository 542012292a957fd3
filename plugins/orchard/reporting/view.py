"""The view that the pages read: one row a batch version, put together once by `view_refresh`, so that no page scans a table.

It lies beside the tables: immutable parts, and one pointer that names the newest. The tables stay the truth, and the view can be
built again from them at any time. This module knows the view's form, and no table.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from orchard_jobs.contract.digests import canonical_json, staged_name
from orchard_jobs.contract.layout import ViewPath
from orchard_jobs.parquet import read_parquet
from orchard_jobs.storage import Warehouse

from orchard.tables.reports import parsed

# Raised when the columns or their meaning change: a view of another form is built anew.
FORM = 3
_TEXT, _COUNT = pa.string(), pa.int64()
_COUNTS = (
    "version",
    "features_version",
    "quarantine_version",
    "listed",
    "featurized",
    "reused",
    "quarantined",
    "missing",
    "network_runs",
)
VERSIONS = pa.schema(
    [
        ("batch_id", _TEXT),
        ("day", pa.date32()),
        ("is_current", pa.bool_()),
        ("state", _TEXT),
        ("why", _TEXT),
        ("manifest_digest", _TEXT),
        ("run_id", _TEXT),
        *((name, _COUNT) for name in _COUNTS),
        ("model_id", _TEXT),
        ("target", _TEXT),
        ("engine", _TEXT),
        ("job_ids", pa.list_(_TEXT)),
        ("jobs_version", _TEXT),
        ("audit_verdict", _TEXT),
        ("featurize_seconds", pa.float64()),
        ("reduce_seconds", pa.float64()),
        ("published_at", pa.timestamp("us", "UTC")),
        ("source", _TEXT),
        ("images", _TEXT),
    ]
)
"""One row a batch version, sorted by batch and version.

`day` is the day that the batch's key names, null where it names none. `is_current` marks one row a batch, and `state` and `why`
(see `reporting.status.STATES`) are about its batch. A batch of which no version is published has one row without a version.
`source` is the file of `runs` that holds the version; null where none does. `images` is the part that lists the images of a
current version (see `view_images`); null where they could not be read. The other columns are those of `runs`.
"""


@dataclass(frozen=True)
class ViewPointer:
    """Which parts are the newest view, and what they were made of.

    Attributes:
        backbone: the backbone whose batches it shows.
        written_at: ISO 8601 in UTC.
        runs_version: the version of `runs` that it shows.
        begun: the manifests that had no `runs` row and could still get one, by digest.
        versions: the part with the rows of `VERSIONS`, as a path in the warehouse.
        models: the part with the models.
        promotions: the part with the promotions.
        form: the form of the parts.
    """

    backbone: str
    written_at: str
    runs_version: int
    begun: tuple[str, ...]
    versions: str
    models: str
    promotions: str
    form: int = FORM

    @property
    def age_from(self) -> datetime:
        """When it was written."""
        return datetime.fromisoformat(self.written_at)

    def to_json(self) -> str:
        """Return the pointer's text."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> "ViewPointer | None":
        """Return the pointer of a text; None for that of another form."""
        fields = json.loads(text)
        if fields["form"] != FORM:
            return None
        return cls(**fields | {"begun": tuple(fields["begun"])})


def stage_part(warehouse: Warehouse, content: bytes) -> str:
    """Write a part that no pointer names yet; return its path, which tells the SHA-256 of its content."""
    path = str(ViewPath(staged_name(hashlib.sha256(content).hexdigest())))
    warehouse.create(path, content)
    return path


def read_pointer(warehouse: Warehouse) -> ViewPointer | None:
    """Return the pointer; None where there is no view yet, or one of another form.

    Raises:
        DamagedFileError: it cannot be read.
    """
    path = str(ViewPath())
    text = warehouse.read_if_there(path)
    return None if text is None else parsed(warehouse, path, text, ViewPointer.from_json)


def read_models(warehouse: Warehouse, pointer: ViewPointer) -> dict[str, list[dict[str, Any]]]:
    """Return the `models` and `promotions` that a pointer names; DamagedFileError when they are lost or damaged."""
    parts = {"models": pointer.models, "promotions": pointer.promotions}
    return {name: read_parquet(warehouse, part).to_pylist() for name, part in parts.items()}


def read_versions(warehouse: Warehouse, pointer: ViewPointer) -> pa.Table:
    """Return the rows that a pointer names, as `VERSIONS`; DamagedFileError when they are lost or damaged."""
    return read_parquet(warehouse, pointer.versions).cast(VERSIONS)
