"""The part of the pages' view that lists the images of one batch version: what `features` and `quarantine` hold, without vectors.

Good images come first, by label, then those without a label; then the quarantined ones, by reason.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from orchard_jobs.parquet import open_parquet, pack
from orchard_jobs.storage import Warehouse

from orchard.reporting.view import stage_part
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.delta_log import TableFile

_OF_OBJECT = [
    ("image_uri", pa.string()),
    ("label", pa.string()),
    ("etag", pa.string()),
    ("size_bytes", pa.int64()),
    ("uploaded_at", pa.timestamp("us", "UTC")),
    ("content_sha256", pa.string()),
]
_GOOD = pa.schema([*_OF_OBJECT, ("width", pa.int32()), ("height", pa.int32()), ("computed_in", pa.string())])
_BAD = pa.schema([*_OF_OBJECT, ("reason", pa.string()), ("message", pa.string())])
IMAGES = pa.unify_schemas([_GOOD, _BAD, pa.schema([("copies", pa.int64())])])
"""The columns of the two tables, and `copies`: how many images of the version have this content, itself included; 0 unread."""
# A page of images lies in one or two row groups, which are read whole.
_ROWS_A_GROUP = 50_000


def stage_images(warehouse: Warehouse, versions: BatchVersions, batch_id: str) -> str:
    """Write the part of a batch's current version; return its path.

    Raises:
        DamagedFileError: a file of the version is lost or damaged.
    """
    good = _read(warehouse, versions.features_files(batch_id), _GOOD).sort_by(
        [("label", "ascending"), ("image_uri", "ascending")]
    )
    bad = _read(warehouse, versions.quarantine_files(batch_id), _BAD).sort_by(
        [("reason", "ascending"), ("image_uri", "ascending")]
    )
    rows = pa.concat_tables([good, bad], promote_options="default")
    rows = rows.append_column("copies", _copies(rows["content_sha256"])).select(IMAGES.names).cast(IMAGES)
    return stage_part(warehouse, pack(rows, rows_a_group=_ROWS_A_GROUP))


def _read(warehouse: Warehouse, files: Iterable[TableFile], schema: pa.Schema) -> pa.Table:
    found = [schema.empty_table()]
    for one in files:
        with open_parquet(warehouse, one.path) as file:
            found.append(file.read(schema.names).cast(schema))
    return pa.concat_tables(found)


def _copies(contents: pa.ChunkedArray) -> pa.Array:
    counts = pc.value_counts(contents.drop_null())
    values, numbers = counts.field("values"), counts.field("counts")
    return pc.fill_null(pc.take(numbers, pc.index_in(contents, value_set=values)), 0)


def count_labels(warehouse: Warehouse, part: str) -> dict[str, Any]:
    """Return what a part holds: `labels` with `label` (null: none) and `images` each, in order, and the number `quarantined`."""
    with open_parquet(warehouse, part) as file:
        rows = file.read(["label", "reason"])
    good = rows.filter(pc.is_null(rows["reason"]))
    counts = good.group_by("label", use_threads=False).aggregate([([], "count_all")]).rename_columns(["label", "images"])
    return {"labels": counts.to_pylist(), "quarantined": rows.num_rows - good.num_rows}


def read_images(
    warehouse: Warehouse, part: str, offset: int, limit: int, label: str | None = None, *, is_any_label: bool = True
) -> dict[str, Any]:
    """Return good images of a part: `total`, and `rows` with their `number` in the part.

    Args:
        warehouse: where the part lies.
        part: the part.
        offset: images to leave out at the beginning.
        limit: images to return.
        label: those of this label; None: those without one.
        is_any_label: those of every label, whatever `label` is.
    """
    with open_parquet(warehouse, part) as file:
        rows = file.read(["label", "reason"])
        wanted = pc.is_null(rows["reason"])
        if not is_any_label:
            fits = pc.is_null(rows["label"]) if label is None else pc.fill_null(pc.equal(rows["label"], label), False)
            wanted = pc.and_(wanted, fits)
        numbers = pc.indices_nonzero(wanted).to_pylist()
        return {"total": len(numbers), "rows": _take(file, numbers[offset : offset + limit])}


def read_quarantined(warehouse: Warehouse, part: str, offset: int, limit: int) -> dict[str, Any]:
    """Return quarantined images of a part: `total`, and `rows` with their `number` in the part."""
    with open_parquet(warehouse, part) as file:
        numbers = pc.indices_nonzero(pc.is_valid(file.read(["reason"])["reason"])).to_pylist()
        return {"total": len(numbers), "rows": _take(file, numbers[offset : offset + limit])}


def read_image(warehouse: Warehouse, part: str, number: int) -> dict[str, Any] | None:
    """Return the image of a number in a part; None where the part has no such number."""
    with open_parquet(warehouse, part) as file:
        rows = _take(file, [number] if 0 <= number < file.metadata.num_rows else [])
        return rows[0] if rows else None


def _take(file: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of some numbers, reading only the row groups that they lie in."""
    if not numbers:
        return []
    first, last = numbers[0] // _ROWS_A_GROUP, numbers[-1] // _ROWS_A_GROUP
    rows = file.read_row_groups(range(first, last + 1))
    taken = rows.take([number - first * _ROWS_A_GROUP for number in numbers])
    return [row | {"number": number} for row, number in zip(taken.to_pylist(), numbers, strict=True)]
