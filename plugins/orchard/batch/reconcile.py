"""Which batches' objects differ from what is published: one pass over the whole landing zone. Knows no Airflow."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger

from orchard.landing_zone.keys import batch_of
from orchard.landing_zone.listing import ListedObject
from orchard.settings import LandingZoneSettings

log = escaping_logger(__name__)
_EXAMPLES = 3
ListPrefix = Callable[[str], Iterable[ListedObject]]
Differs = Callable[[str, Iterable[ListedObject]], bool]


@dataclass(frozen=True)
class Differences:
    """What one pass found.

    Attributes:
        batch_ids: every batch whose objects differ from what is published, sorted.
        batches: batches seen.
        objects: objects under a batch.
        strays: objects under no batch key.
        examples: the first keys of those.
        damaged: by batch, why it cannot be compared: a file of its published version is lost or damaged.
    """

    batch_ids: tuple[str, ...]
    batches: int
    objects: int
    strays: int
    examples: tuple[str, ...]
    damaged: Mapping[str, DamagedFileError] = field(default_factory=dict)


def _noting_damage(differs: Differs, damaged: dict[str, DamagedFileError]) -> Differs:
    """Return a comparison to which a damaged batch is not different, and which notes why."""

    def is_different(batch_id: str, items: Iterable[ListedObject]) -> bool:
        try:
            return differs(batch_id, items)
        except DamagedFileError as error:
            damaged[batch_id] = error
            return False

    return is_different


def find_differences(list_prefix: ListPrefix, zone: LandingZoneSettings, differs: Differs) -> Differences:
    """Compare every listed batch with what is published; holds one batch's name at a time, never its objects.

    S3 lists keys in order, so a batch comes in one piece. From a store with another order a batch may come in several, none of
    which can be compared: such a batch is listed again by itself.

    Args:
        list_prefix: lists the objects of the landing bucket below a key prefix.
        zone: where batches are, and how a key names its batch.
        differs: says whether a batch's objects differ from what is published.
    """
    found: dict[str, bool] = {}
    damaged: dict[str, DamagedFileError] = {}
    is_different = _noting_damage(differs, damaged)
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
        found[batch_id] = batch_id not in scattered and is_different(batch_id, rest)
        for _ in rest:  # a comparison may end at the first difference
            pass
    for batch_id in scattered:
        found[batch_id] = is_different(batch_id, list_prefix(zone.batch_prefix(batch_id)))
    batch_ids = tuple(sorted(batch_id for batch_id, has_changed in found.items() if has_changed))
    return Differences(batch_ids, len(found), objects, strays, tuple(examples), damaged)
