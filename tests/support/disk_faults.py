"""Runs that meet a full and a read-only disk at each kind of write. A test starts them as processes of their own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, RUNS
from orchard_jobs.errors import JobError

from support.fake_jobs import FakeJobs
from support.faked_flow import plan, stage_and_publish


def fill_up(folder: str) -> None:
    """Meet a full disk at each kind of write; free it each time."""
    ballast = Path(folder, "ballast")
    _run_with(folder, lambda: _fill(ballast), ballast.unlink, "no space is left on its disk.*orchard clean")


def make_read_only(folder: str) -> None:
    """Meet a disk that was mounted read-only at each kind of write; make it writable each time."""
    _run_with(folder, lambda: _mount(folder, "ro"), lambda: _mount(folder, "rw"), "its disk is read-only: make it writable")


def _run_with(folder: str, break_disk: Callable[[], None], mend_disk: Callable[[], None], words: str) -> None:
    """Meet a fault when tables are made, when a job stages and when a commit is written; then end as if there had been none."""
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": f"{folder}/warehouse"})
    tables = Tables.at(settings.warehouse)
    bucket = {"images/2026-01-01/apple/1.jpg": b"one"}

    def when_broken(act: str, step: Callable[[], object]) -> None:
        break_disk()
        with pytest.raises(JobError, match=f"file://{folder}/warehouse/{act}.*{words}"):
            step()
        mend_disk()

    when_broken("features cannot", lambda: tables.log.create(FEATURES))
    tables.create_all()
    head = plan(tables, settings, "2026-01-01", bucket)
    assert head is not None
    jobs = FakeJobs(tables, bucket)
    when_broken("features/backbone=", lambda: jobs.featurize(head))
    featurized = jobs.featurize(head)
    when_broken("quarantine cannot", lambda: stage_and_publish(tables, head, jobs))
    stage_and_publish(tables, head, jobs)
    assert len(list(tables.rows(FEATURES))) == len(featurized.of_table("features")[0].files) == 1
    assert len(list(tables.rows(RUNS))) == 1


def _mount(folder: str, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return
