"""Workers whose tasks are called in the test's own process, without Spark."""

from typing import Any, cast

from orchard_jobs.stages.workers import Workers

WORKERS = Workers(cast(Any, None), "spark")
