"""How many tasks a batch is: alike in size, fours of them up to 1,024 images each, and of a huge batch about 64."""

import pytest
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.stages.featurize import _shards


def entries(count: int, alike: int = 1) -> list[Entry]:
    return [
        Entry(f"s3://landing/{number:06}.jpg", "e", 1, "2026-01-01T00:00:00+00:00", None, "compute", f"{number // alike:06}")
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("images", "tasks", "largest"),
    [(0, 0, 0), (1, 1, 1), (140, 4, 35), (4_000, 4, 1_000), (4_097, 8, 513), (10_000, 12, 834), (90_000, 68, 1_324)],
)
def test_tasks_are_alike_and_bounded(images: int, tasks: int, largest: int) -> None:
    sizes = [len(shard) for shard in _shards(entries(images))]
    assert (len(sizes), max(sizes, default=0), sum(sizes)) == (tasks, largest, images)
    assert not sizes or max(sizes) - sizes[-1] <= tasks


def test_images_that_may_be_equal_share_a_task() -> None:
    groups = [{entry.group for entry in shard} for shard in _shards(entries(4_000, alike=300))]
    assert sum(map(len, groups)) == len(set().union(*groups))
