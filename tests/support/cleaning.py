"""Cleaning as tests do it, and what must be true after it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from orchard.batch.publish import RunFacts
from orchard.maintenance.clean import Removal, find_removals, remove
from orchard.models.refit import pending_work
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, TABLES
from orchard_jobs.contract.manifest import ManifestHead

from support.changed_settings import with_variables
from support.fake_jobs import BROKEN, FakeJobs
from support.faked_flow import plan, rows, run_batch, run_model

WEEK = timedelta(days=7)


DAYS = ("2026-01-01", "2026-01-02")


Bucket = dict[str, bytes]


def bucket_of(day: str, salt: str = "") -> Bucket:
    images = {f"images/{day}/apple/{n}.jpg": f"{day}{n}{salt}".encode() for n in range(6)}
    return images | {f"images/{day}/apple/broken.jpg": BROKEN + salt.encode()}


def clean(tables: Tables, settings: Settings, retention: timedelta = WEEK) -> tuple[Removal, ...]:
    now = datetime.now(UTC)
    return remove(tables, find_removals(tables, settings, now, retention), now, retention)


def contents(tables: Tables) -> list[list[dict[str, Any]]]:
    return [rows(tables, table) for table in TABLES]


def stage_refused(tables: Tables, settings: Settings) -> ManifestHead:
    """Stage a version and leave it unpublished, as an audit does that refuses it."""
    bucket = bucket_of(DAYS[1]) | {f"images/{DAYS[1]}/apple/late.jpg": b"late"}
    head = plan(tables, settings, DAYS[1], bucket)
    assert head is not None
    jobs = FakeJobs(tables, bucket)
    jobs.reduce(head, jobs.featurize(head))
    return head


def check_whole(tables: Tables, settings: Settings, before: list[list[dict[str, Any]]]) -> None:
    """Every published row is there, and what comes next is planned, computed and published as ever."""
    assert contents(tables) == before
    assert plan(tables, settings, DAYS[0], bucket_of(DAYS[0], "new")) is None
    later = bucket_of(DAYS[0], "new") | {f"images/{DAYS[0]}/apple/later.jpg": b"later"}
    assert len(run_batch(tables, settings, DAYS[0], later, "later").network_runs) == 1
    assert len(list(tables.rows(FEATURES, batch_id=DAYS[0]))) == 8
    run_model(tables, with_variables(settings, ORCHARD_COMPONENTS=2), "later")
    assert pending_work(tables, with_variables(settings, ORCHARD_COMPONENTS=2)) is None


FACTS = RunFacts("run", "local", "passed")
