"""Which batches' objects differ from what is published: one pass over the whole landing zone. Knows no Airflow."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from orchard_jobs.escaping import escaping_logger

from orchard.landing_zone.keys import batch_of
from orchard.landing_zone.listing import ListedObject
from orchard.settings import LandingZoneSettings

log = escaping_logger(__name__)
_EXAMPLES = 3
ListPrefix = Callable[[str], Iterable[ListedObject]]


@dataclass(frozen=True)
class Differences:
    """What one pass found.

    Attributes:
        batch_ids: every batch whose objects differ from what is published, sorted.
        batches: batches seen.
        objects: objects under a batch.
        strays: objects under no batch key.
        examples: the first keys of those.
    """

    batch_ids: tuple[str, ...]
    batches: int
    objects: int
    strays: int
    examples: tuple[str, ...]


def find_differences(
    list_prefix: ListPrefix, zone: LandingZoneSettings, differs: Callable[[str, Iterable[ListedObject]], bool]
) -> Differences:
    """Compare every listed batch with what is published; holds one batch's name at a time, never its objects.

    S3 lists keys in order, so a batch comes in one piece. From a store with another order a batch may come in several, none of
    which can be compared: such a batch is listed again by itself.

    Args:
        list_prefix: lists the objects of the landing bucket below a key prefix.
        zone: where batches are, and how a key names its batch.
        differs: says whether a batch's objects differ from what is published.
    """
    found: dict[str, bool] = {}
    scattered = set()
    objects = strays = 0
    examples: list[str] = []

    def counted(items: Iterable[ListedObject]) -> Iterable[ListedObject]:
        nonlocal objects
        for item in items:
            objects += 1
            yield item

    for batch_id, items in groupby(list_prefix(zone.prefix), lambda item: batch_of(item.key, zone)):
        if batch_id is None:
            for item in items:
                strays += 1
                if len(examples) < _EXAMPLES:
                    examples.append(item.key)
            continue
        if batch_id in found:
            scattered.add(batch_id)
        rest = counted(items)
        found[batch_id] = batch_id not in scattered and differs(batch_id, rest)
        for _ in rest:  # a comparison may end at the first difference
            pass
    for batch_id in scattered:
        found[batch_id] = differs(batch_id, list_prefix(zone.batch_prefix(batch_id)))
    batch_ids = tuple(sorted(batch_id for batch_id, is_different in found.items() if is_different))
    return Differences(batch_ids, len(found), objects, strays, tuple(examples))
