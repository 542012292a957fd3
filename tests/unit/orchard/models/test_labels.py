"""What labels mean, how many images have each, and how they are held out."""

import pytest
from orchard.models.labels import LabelMeaning, count_labels, total
from orchard.settings import Settings
from orchard.tables.batch_versions import readable_versions
from orchard.tables.commit_rule import Tables
from support.faked_flow import run_batch
from support.published_batches import DAYS
from support.warehouse_faults import overwritten


def test_a_label_is_its_own_class_unless_the_mapping_says_otherwise() -> None:
    meaning = LabelMeaning({"red": "apple", "green": "apple"}, (), 5)
    choice = meaning.classes_of({"red": 3, "green": 2, "plum": 5, "kiwi": 4})
    assert choice.class_of == {"red": "apple", "green": "apple", "plum": "plum"}
    assert choice.left_out == {"kiwi": 4}
    assert choice.names == {"apple", "plum"}


@pytest.mark.parametrize(
    ("batches", "held_out"),
    [
        ([{"apple": 9, "plum": 9}], "contents"),
        ([{"apple": 9, "plum": 9}, {"apple": 1, "plum": 1}], "batches"),
        ([{"apple": 9}, {"plum": 9}], "contents"),
        ([{"apple": 9, "plum": 9}, {"apple": 9, "kiwi": 9}], "contents"),
        ([{"apple": 9, "plum": 9}, {"apple": 9, "kiwi": 8}], "batches"),
        ([{"red": 9, "plum": 5}, {"green": 9}], "batches"),
        ([{"apple": 9}, {"apple": 9}, {"odd": 99}], "batches"),
    ],
)
def test_batches_are_held_out_where_most_images_are_of_classes_in_several(batches: list[dict[str, int]], held_out: str) -> None:
    """Labels of no class (odd) decide nothing."""
    meaning = LabelMeaning({"red": "apple", "green": "apple"}, (), 1)
    choice = meaning.classes_of({label: count for label, count in total(batches).items() if label != "odd"})
    assert choice.hold_out(batches) == held_out


def test_labelled_images_are_counted_by_batch(tables: Tables, settings: Settings) -> None:
    for day, labels in zip(DAYS, (["apple", "apple", "unsorted"], ["plum"]), strict=False):
        images = {f"images/{day}/{label}/{number}.jpg": f"{day}{number}".encode() for number, label in enumerate(labels)}
        run_batch(tables, settings, day, images | {f"images/{day}/loose.jpg": day.encode()})
    versions = readable_versions(tables, settings.backbone.id)
    counts = count_labels(tables.warehouse, versions, ("unsorted",))
    assert list(counts.values()) == [{"apple": 2}, {"plum": 1}]
    with overwritten(tables.warehouse, versions[0].files[0]):
        assert list(count_labels(tables.warehouse, versions, ())) == [versions[1]]
