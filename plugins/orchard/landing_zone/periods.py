"""A batch's period: from its key's time to the next tick of the schedule. Knows no Airflow."""

from datetime import UTC, datetime

from croniter import croniter

from orchard.settings import Settings

_DAILY = "0 0 * * *"


def batch_cron(settings: Settings) -> str:
    """Return the cron whose ticks bound the batches: the schedule, or days where nothing is scheduled."""
    return _DAILY if settings.schedule == "none" else settings.schedule


def period_start(batch_id: str, key_format: str) -> datetime:
    """Return when a batch's period began: its key's time, in UTC."""
    return datetime.strptime(batch_id, key_format).replace(tzinfo=UTC)


def period_end(start: datetime, cron: str) -> datetime:
    """Return when the period that began at a time ended, or ends: the next tick."""
    end: datetime = croniter(cron, start).get_next(datetime)
    return end


def is_start(moment: datetime, cron: str) -> bool:
    """Tell whether a period begins at a time, so that a backfill reaches its batch."""
    return bool(croniter.match(cron, moment))
