"""Keys of the landing zone: which batch an object or a run belongs to."""

from datetime import UTC, datetime

from orchard_jobs.contract.locations import checked_batch_id, first_folder
from orchard_jobs.errors import ConfigurationError

from orchard.outcomes import Done, Outcome, use_case
from orchard.settings import LandingZoneSettings, Settings

# A schedule's next tick comes within 50 years, the longest grace time after it within 32, and Python's dates end with 9999.
_LAST_YEAR = 9900


def checked_partition_key(partition_key: str | None, key_format: str) -> str:
    """Return a run's partition key as a batch id.

    Raises:
        ConfigurationError: the run has no key, or one of another format; it says how to start a run.
    """
    if partition_key is None:
        raise ConfigurationError(
            "this run has no partition key, so it names no batch: start it with one, in the UI under Trigger > Partition key, "
            'or by POST dagRuns {"partition_key": "2026-01-31", "logical_date": null}'
        )
    try:
        moment = datetime.strptime(partition_key, key_format).replace(tzinfo=UTC)
        if moment.strftime(key_format) != partition_key:
            raise ValueError("not the canonical spelling of this date; use that one")
        if moment.year > _LAST_YEAR:
            raise ValueError(f"after the year {_LAST_YEAR}, so that no calendar holds the end of its period")
    except ValueError as error:
        raise ConfigurationError(
            f"partition key {partition_key!r} is not of the form {key_format!r}: {error}; start the run with another key, "
            "or set ORCHARD_BATCH_KEY_FORMAT"
        ) from error
    return checked_batch_id(partition_key)


@use_case
def batch_id_of(partition_key: str | None, settings: Settings) -> Outcome[str]:
    """Return the batch that a run's partition key names; failed when it names none."""
    return Done(checked_partition_key(partition_key, settings.landing_zone.key_format))


def is_batch_key(text: str, key_format: str) -> bool:
    """Tell whether a run can be started with a partition key; not so for batches of an earlier format."""
    try:
        checked_partition_key(text, key_format)
    except ConfigurationError:
        return False
    return True


def batch_of(key: str, zone: LandingZoneSettings) -> str | None:
    """Return the batch that an object's key belongs to; None outside the landing prefix or under no key of the format."""
    batch_id = first_folder(key, zone.prefix)
    return batch_id if batch_id is not None and is_batch_key(batch_id, zone.key_format) else None
