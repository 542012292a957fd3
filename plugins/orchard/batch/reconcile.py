"""Which batches' objects differ from what is published: one pass over the whole landing zone. Knows no Airflow."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from orchard.batch.comparison import PublishedView
from orchard.landing_zone.keys import batch_of, is_batch_key
from orchard.landing_zone.listing import LandingZone, ListedObject
from orchard.outcomes import Done, Outcome, Skipped, use_case
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

log = logging.getLogger(__name__)
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
    list_prefix: ListPrefix, settings: Settings, differs: Callable[[str, Iterable[ListedObject]], bool]
) -> Differences:
    """Compare every listed batch with what is published; holds one batch's name at a time, never its objects.

    S3 lists keys in order, so a batch comes in one piece. From a store with another order a batch may come in several, none of
    which can be compared: such a batch is listed again by itself.

    Args:
        list_prefix: lists the objects of the landing bucket below a key prefix.
        settings: landing zone and key format.
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

    for batch_id, items in groupby(list_prefix(settings.prefix), lambda item: batch_of(item.key, settings)):
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
        found[batch_id] = differs(batch_id, list_prefix(settings.batch_prefix(batch_id)))
    batch_ids = tuple(sorted(batch_id for batch_id, is_different in found.items() if is_different))
    return Differences(batch_ids, len(found), objects, strays, tuple(examples))


@use_case
def reconcile(tables: Tables, settings: Settings, landing_zone: LandingZone) -> Outcome[tuple[str, ...]]:
    """Return the batches that need a run, sorted: what they list differs, or a run left a version of them half-way.

    Skipped when there is none. Batches and objects that no run can be started for are logged and left out.
    """
    tables.create_all()
    view = PublishedView.load(tables, settings)
    found = find_differences(landing_zone.list, settings, view.differs)
    # A version may have been left half-way by a run whose objects are gone by now.
    half_way = set(view.versions.half_way)
    startable = {batch_id for batch_id in half_way if is_batch_key(batch_id, settings.batch_key_format)}
    batch_ids = tuple(sorted({*found.batch_ids, *startable}))
    log.info("batches=%s objects=%s different=%s", found.batches, found.objects, batch_ids)
    for left in sorted(half_way - startable):
        log.warning("batch %s was left half-way, and is no key of ORCHARD_BATCH_KEY_FORMAT: orchard status tells more", left)
    if found.strays:
        log.warning("objects under no batch key: %s, for example %s", found.strays, list(found.examples))
    if not batch_ids:
        return Skipped(f"{found.objects} objects of {found.batches} batches are as published")
    return Done(batch_ids)
