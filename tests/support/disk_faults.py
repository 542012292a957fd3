"""A run that meets a full disk at each kind of write. A test starts it as a process of its own, on a small disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, RUNS
from orchard_jobs.errors import JobError

from support.fake_jobs import FakeJobs
from support.flow import plan, stage_and_publish


def fill_up(folder: str) -> None:
    """Meet a full disk when tables are made, when a job stages and when a commit is written; free it each time."""
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": f"{folder}/warehouse"})
    tables = Tables.at(settings.warehouse)
    ballast = Path(folder, "ballast")
    bucket = {"images/2026-01-01/apple/1.jpg": b"one"}

    def when_full(act: str, step: Callable[[], object]) -> None:
        _fill(ballast)
        with pytest.raises(JobError, match=f"file://{folder}/warehouse/{act}.*no space is left on its disk.*orchard clean"):
            step()
        ballast.unlink()

    when_full("features cannot", lambda: tables.log.create(FEATURES))
    tables.create_all()
    head = plan(tables, settings, "2026-01-01", bucket)
    assert head is not None
    jobs = FakeJobs(tables, bucket)
    when_full("features/backbone=", lambda: jobs.featurize(head))
    featurized = jobs.featurize(head)
    when_full("quarantine cannot", lambda: stage_and_publish(tables, head, jobs))
    stage_and_publish(tables, head, jobs)
    assert len(list(tables.rows(FEATURES))) == len(featurized.of_table("features")[0].files) == 1
    assert len(list(tables.rows(RUNS))) == 1


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return
