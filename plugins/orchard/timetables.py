"""When `image_batches` runs, and which batch a run is for."""

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import CronPartitionTimetable

from orchard.settings import Settings

DAILY = "0 0 * * *"


def batch_cron(settings: Settings) -> str:
    """Return the cron whose ticks bound the batches: the schedule, or days where nothing is scheduled."""
    return DAILY if settings.schedule == "none" else settings.schedule


def batch_schedule(settings: Settings) -> dict[str, Any]:
    """Return the DAG arguments that make one run a partition.

    With run_offset -1 the run that fires at the end of a period gets that period's key. Without a schedule the DAG's last date
    has passed, so the clock starts nothing; runs by hand and backfills keep their keys and their checks.
    """
    timetable = CronPartitionTimetable(
        batch_cron(settings), timezone="UTC", run_offset=-1, key_format=settings.batch_key_format
    )
    start = datetime(2000, 1, 1, tzinfo=UTC)
    return {"schedule": timetable, "start_date": start} | ({"end_date": start} if settings.schedule == "none" else {})
