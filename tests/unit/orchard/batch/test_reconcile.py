"""reconcile_uploads: what differs is found in one pass over real tables, in whatever order a store lists."""

from collections.abc import Iterable, Iterator

import pytest
from orchard.batch.comparison import ListingComparer
from orchard.batch.reconcile import Differences, find_differences
from orchard.landing_zone.listing import ListedObject
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from support.faked_flow import run_batch
from support.listed_bucket import listing

SAME, LATE, NEW = "2026-01-01", "2026-01-02", "2026-01-03"


@pytest.fixture
def bucket(tables: Tables, settings: Settings) -> dict[str, bytes]:
    bucket = {f"images/{day}/kiwi/{n}.jpg": f"{day} {n}".encode() for day in (SAME, LATE) for n in range(4)}
    for day in (SAME, LATE):
        run_batch(tables, settings, day, bucket)
    return bucket | {f"images/{LATE}/kiwi/late.jpg": b"late", f"images/{NEW}/kiwi/0.jpg": b"new", "images/readme.txt": b"stray"}


def found_in(tables: Tables, settings: Settings, objects: Iterable[ListedObject], bucket: dict[str, bytes]) -> Differences:
    def list_prefix(prefix: str) -> Iterable[ListedObject]:
        own = {key: content for key, content in bucket.items() if key.startswith(prefix)}
        return objects if prefix == settings.landing_zone.prefix else listing(own)

    return find_differences(list_prefix, settings.landing_zone, ListingComparer.load(tables, settings).differs)


def test_new_and_changed_batches_are_found_and_strays_counted(
    tables: Tables, settings: Settings, bucket: dict[str, bytes]
) -> None:
    in_order = sorted(listing(bucket), key=lambda item: item.key)
    assert found_in(tables, settings, in_order, bucket) == Differences((LATE, NEW), 3, 10, 1, ("images/readme.txt",))
    for day in (LATE, NEW):
        run_batch(tables, settings, day, bucket)
    assert found_in(tables, settings, in_order, bucket).batch_ids == ()


def test_a_store_that_lists_in_another_order_gives_the_same(tables: Tables, settings: Settings, bucket: dict[str, bytes]) -> None:
    scattered = sorted(listing(bucket), key=lambda item: item.key[::-1])
    assert found_in(tables, settings, scattered, bucket).batch_ids == (LATE, NEW)
    # A piece of a batch looks as if the rest were missing, and would differ where missing rows are dropped.
    dropping = Settings.from_environment({"ORCHARD_WAREHOUSE": settings.warehouse, "ORCHARD_MISSING": "drop"})
    assert found_in(tables, dropping, scattered, bucket).batch_ids == (LATE, NEW)


def test_no_batch_is_held_in_memory(settings: Settings) -> None:
    taken = 0

    def listed(prefix: str) -> Iterator[ListedObject]:
        nonlocal taken
        assert prefix == settings.landing_zone.prefix
        for day in ("2026-01-01", "2026-01-02"):
            for item in listing({f"images/{day}/{n}.jpg": b"x" for n in range(5)}):
                taken += 1
                yield item

    compared_after = []

    def differs(batch_id: str, items: Iterable[ListedObject]) -> bool:
        compared_after.append(taken)
        return next(iter(items)).size_bytes == 1

    found = find_differences(listed, settings.landing_zone, differs)
    assert compared_after == [1, 6]
    assert (found.batch_ids, found.objects) == (("2026-01-01", "2026-01-02"), 10)
