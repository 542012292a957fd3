"""The rows that a model made of a batch version: they are exactly the rows of its features."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchard_jobs.audit.file_checks import Rows, read_columns, read_rows
from orchard_jobs.audit.row_checks import check_rows
from orchard_jobs.audit.row_matching import digest_16
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.contract.columns import FEATURES, Table
from orchard_jobs.contract.jobs import BatchVersion, JobReport
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.storage import Warehouse

_IDENTITY = ("image_uri", "content_sha256", "label")


@dataclass(frozen=True)
class ModelRows:
    """The rows of one model and one batch version in a table."""

    warehouse: Warehouse
    table: Table
    model: ModelReference
    batch: BatchVersion

    def features(self, *columns: str) -> Iterator[Rows]:
        """Yield some columns of the features that they are made of."""
        for path in self.batch.files:
            yield from read_columns(self.warehouse, FEATURES, path, columns)


def matched_rows(of: ModelRows, report: JobReport, check: str, findings: Findings) -> Iterator[Rows]:
    """Yield the staged rows, chunk by chunk, having judged what holds for every table and `check`: that they are the features'.

    What features rows have no row is judged after the last chunk. Holds 16 bytes a row of the batch.
    """
    wanted = {key for _, key in keys_of(of.features(*_IDENTITY))}
    seen: set[bytes] = set()
    for partition in report.of_table(of.table.name):
        for file in partition.files if partition.partition == (of.model.model_id, of.batch.batch_id) else ():
            for chunk in read_rows(of.warehouse, of.table, file.path):
                check_rows(chunk, of.batch.manifest_digest, findings)
                findings.extend(check, file.path, _unexpected(chunk, wanted, seen))
                yield chunk
    findings.extend(check, f"batch {of.batch.batch_id}", _without_row(of, wanted - seen))


def keys_of(chunks: Iterable[Rows]) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each row, and 16 bytes that tell it from others: of its URI, content and label."""
    for chunk in chunks:
        columns = [chunk.values(name) for name in _IDENTITY]
        yield from ((chunk.names[i], digest_16(*row)) for i, row in enumerate(zip(*columns, strict=True)))


def _unexpected(chunk: Rows, wanted: set[bytes], seen: set[bytes]) -> Iterator[str]:
    for name, key in keys_of([chunk]):
        if key not in wanted:
            yield f"{name} with this content and label is not in features"
        elif key in seen:
            yield f"{name} occurs again here"
        seen.add(key)


def _without_row(of: ModelRows, lost: set[bytes]) -> Iterator[str]:
    for name, key in keys_of(of.features(*_IDENTITY)) if lost else ():
        if key in lost:
            yield f"{name} of features has no row"
