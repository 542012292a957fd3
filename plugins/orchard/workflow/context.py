"""What every task of this Airflow shares: its settings, the tables, the landing zone, and the arguments of its DAG."""

from datetime import timedelta
from functools import cache
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from orchard.landing_zone.listing import LandingZone, S3LandingZone, with_quick_times
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.workflow.notify import failure_notifier

# A task whose inputs may have been skipped because their work was finished before.
AFTER_SKIPS = "none_failed_min_one_success"
# A task that tells how the others ended, if a first one did anything.
AT_THE_END = "all_done_min_one_success"


@cache
def settings() -> Settings:
    """Return this process's settings."""
    return Settings.from_environment()


def tables() -> Tables:
    """Return the tables of the settings' warehouse."""
    return Tables.at(settings().warehouse)


def landing_zone_of(settings: Settings) -> LandingZone:
    """Return the landing zone of some settings, reached through their Airflow connection."""
    return S3LandingZone(with_quick_times(S3Hook(settings.aws_conn_id).get_conn()), settings.landing_zone.bucket)


def dag_arguments() -> dict[str, Any]:
    """Return what all DAGs have: no catch-up, and for every task retries with back-off and the notifier of a failure."""
    return {
        "catchup": False,
        "tags": ["orchard"],
        "default_args": {
            "retries": settings().runs.retries,
            "retry_delay": timedelta(seconds=settings().runs.retry_seconds),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(hours=1),
            "on_failure_callback": [failure_notifier(settings())],
        },
    }
