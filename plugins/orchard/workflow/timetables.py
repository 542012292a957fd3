"""When `image_batches` runs, and which batch a run is for."""

from datetime import UTC, datetime

from airflow.sdk import CronPartitionTimetable

from orchard.landing_zone.periods import batch_cron
from orchard.settings import Settings

FIRST_DAY = datetime(2000, 1, 1, tzinfo=UTC)


def batch_timetable(settings: Settings) -> CronPartitionTimetable:
    """Return the timetable that makes one run for each partition.

    With run_offset -1 the run that fires at the end of a period gets that period's key.
    """
    return CronPartitionTimetable(
        batch_cron(settings.runs), timezone="UTC", run_offset=-1, key_format=settings.landing_zone.key_format
    )


def last_scheduled_day(settings: Settings) -> datetime | None:
    """Return the DAG's end date: none with a schedule; without one long past, so the clock starts nothing.

    Runs by hand and backfills keep their keys and their checks, which a DAG without a timetable would lose.
    """
    return None if settings.runs.schedule else FIRST_DAY
