"""Published features files of labelled rows, and the plan of a classifier's fit on them."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.labelled_rows import to_columns
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.jobs import BatchVersion, ClassifierFit, HoldOut
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.parquet import pack
from orchard_jobs.scatter import Floats
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

from support.labelled_samples import Labelled, labelled

ROWS_PER_FILE = 40


@dataclass
class PublishedLabels:
    """Batches with a features file for each 40 rows, in a warehouse without tables.

    Attributes:
        warehouse: where the files lie.
        versions: the batch versions, in the order in which they were published.
        data: the rows of each.
    """

    warehouse: Warehouse
    versions: list[BatchVersion] = field(default_factory=list)
    data: list[Labelled] = field(default_factory=list)

    def publish(self, batch_id: str, data: Labelled) -> None:
        """Write the features files of a batch."""
        digest = hashlib.sha256(batch_id.encode()).hexdigest()
        parts = range(0, len(data.labels), ROWS_PER_FILE)
        paths = [self._write(batch_id, digest, data, first) for first in parts]
        self.versions.append(BatchVersion(batch_id, digest, 1, tuple(paths)))
        self.data.append(data)

    def _write(self, batch_id: str, digest: str, data: Labelled, first: int) -> str:
        rows, labels = data.rows[first : first + ROWS_PER_FILE].astype(np.float32), data.labels[first : first + ROWS_PER_FILE]
        known = {"manifest_digest": digest, "etag": "0" * 32, "size_bytes": 1, "uploaded_at": 0, "width": 1, "height": 1}
        known |= {"computed_in": digest, "jobs_version": "0"}
        table = pa.Table.from_pylist(
            [
                {"image_uri": f"s3://{batch_id}/{first + n}", "content_sha256": content_of(vector), "label": label or None}
                | {"features": vector}
                | known
                for n, (vector, label) in enumerate(zip(rows, labels, strict=True))
            ],
            arrow_schema(FEATURES),
        )
        path = f"features/{batch_id}-{first}.parquet"
        self.warehouse.create(path, pack(table))
        return path

    def class_moments(self, *batches: int) -> tuple[tuple[str, str], ...]:
        """Write the class moments of some batches, and return what a plan says of them."""
        found = []
        for batch in batches:
            version, data = self.versions[batch], self.data[batch]
            own = data.take(np.flatnonzero(data.labels != ""))
            path = f"class_moments/{version.batch_id}.parquet"
            rows = ClassMoments.of(own.rows.astype(np.float32), list(own.labels))
            self.warehouse.create(path, pack(pa.table(to_columns(rows))))
            found.append((version.batch_id, path))
        return tuple(found)

    @property
    def together(self) -> Labelled:
        """All rows."""
        rows: Floats = np.concatenate([one.rows for one in self.data])
        return Labelled(rows, np.concatenate([one.labels for one in self.data]))

    def plan(
        self,
        class_of: dict[str, str],
        held_out: HoldOut = "batches",
        unlabelled: tuple[str, ...] = (),
        current: ModelReference | None = None,
        name: str = "lda-1",
    ) -> ClassifierFit:
        """Return the fit on all batches."""
        versions = tuple(sorted(self.versions, key=lambda version: version.batch_id))
        model = ModelReference(name, model_path(name, CLASSIFIERS), len(set(class_of.values())))
        pairs = tuple(sorted(class_of.items()))
        return ClassifierFit(model, versions, pairs, (), unlabelled, held_out, len(self.together.labels), current)


def content_of(vector: Floats) -> str:
    """Return what stands for the digest of an image that has these features."""
    return hashlib.sha256(vector.astype(np.float32).tobytes()).hexdigest()


def shop(warehouse: Warehouse, days: int = 4) -> PublishedLabels:
    """Return batches of four labels, two of which are of one class in the tests."""
    published = PublishedLabels(warehouse)
    whole = labelled({"gala": 60 * days, "fuji": 40 * days, "plum": 50 * days, "quince": 30 * days})
    for day in range(days):
        published.publish(f"2026-01-0{day + 1}", whole.take(np.arange(day, len(whole.labels), days)))
    return published
