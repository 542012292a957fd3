"""Which rows of a batch version count under which label, and their class moments as columns and from features files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from orchard_jobs.classifier.class_moments import ClassMoments
from orchard_jobs.classifier.labelled_rows import LabelRule, from_columns, moved_images, to_columns
from orchard_jobs.parquet import pack
from orchard_jobs.storage import Warehouse
from support.labelled_samples import labelled

Row = tuple[str, str, str | None]


def file_of(warehouse: Warehouse, path: str, rows: list[Row]) -> str:
    """Write a features file of rows (URI, content, label) whose one feature is their position, and return its path."""
    uris, contents, labels = (list(column) for column in zip(*rows, strict=True))
    features = pa.array([[float(position)] for position in range(len(rows))], pa.list_(pa.float32()))
    table = pa.table(
        {"image_uri": uris, "content_sha256": contents, "label": pa.array(labels, pa.string()), "features": features}
    )
    warehouse.create(path, pack(table))
    return path


def same(one: ClassMoments, other: ClassMoments) -> bool:
    return one.labels == other.labels and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("counts", "means", "upper_triangle")
    )


def test_class_moments_come_back_from_their_columns() -> None:
    for moments in (labelled({"apple": 7, "pear": 3}).moments, ClassMoments.empty()):
        assert same(from_columns(pa.table(to_columns(moments))), moments)


def test_rows_without_a_label_and_unlabelled_ones_do_not_count() -> None:
    rows = pa.table({"image_uri": ["a", "b", "c", "d"], "label": ["apple", None, "unsorted", "pear"]})
    assert LabelRule(frozenset(["unsorted"]), frozenset("d")).labels_of(rows) == ["apple", None, None, None]


def test_an_image_is_moved_where_another_label_lists_its_content(tmp_path: Path) -> None:
    warehouse = Warehouse.at(str(tmp_path))
    gone: list[Row] = [
        ("moved", "1", "apple"),
        ("unsorted since", "2", "apple"),
        ("copied", "3", "apple"),
        ("lost", "4", "apple"),
    ]
    gone += [("also gone", "4", "pear"), ("twice", "5", "apple")]
    listed: list[Row] = [("1", "1", "pear"), ("2", "2", None), ("3", "3", "apple"), ("5", "5", "apple"), ("5 again", "5", "pear")]
    paths = [file_of(warehouse, f"features/{name}.parquet", rows) for name, rows in (("gone", gone), ("listed", listed))]
    missing = frozenset(uri for uri, _, _ in gone)
    assert moved_images(warehouse, paths, missing) == {"moved", "unsorted since", "twice"}


def test_the_class_moments_of_files_are_those_of_the_rows_that_count(tmp_path: Path) -> None:
    warehouse = Warehouse.at(str(tmp_path))
    first = file_of(warehouse, "features/a.parquet", [("a", "1", "apple"), ("b", "2", None), ("c", "3", "pear")])
    second = file_of(warehouse, "features/b.parquet", [("d", "3", "apple"), ("e", "4", "none")])
    rule = LabelRule.of(warehouse, ["none"], frozenset(["c"]), (first, second))
    assert rule.moved == {"c"}
    found = list(rule.moments_of_files(warehouse, [first, second]))
    assert [(one.labels, one.means.tolist()) for one in found] == [(("apple",), [[0.0]]), (("apple",), [[0.0]])]
