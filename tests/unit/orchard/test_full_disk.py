"""A full disk is told as what it is, and a retry goes on. The disk is a small one of a namespace of the kernel's."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_jobs import FakeJobs
from flow import plan, stage_and_publish
from orchard.settings import Settings
from orchard.tables import Tables
from orchard_jobs.contract.columns import FEATURES, RUNS
from orchard_jobs.errors import JobError

ROOM = 300_000
IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """The command that calls one of this module's functions with a disk of its own."""
    mount = f"mount -t tmpfs -o size={ROOM} tmpfs {tmp_path}"
    try:
        subprocess.run([*IN_A_NAMESPACE, "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine gives no namespaces with disks of their own")
    folders = [path for path in sys.path if path]
    call = f"import sys; sys.path[:0] = {folders}; import test_full_disk; test_full_disk.fill_up({str(tmp_path)!r})"
    return [*IN_A_NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", call]


def test_a_full_disk_is_told_and_what_freed_it_lets_the_run_go_on(small_disk: list[str]) -> None:
    done = subprocess.run(small_disk, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def fill_up(folder: str) -> None:
    """Meet a full disk when tables are made, when a job stages and when a commit is written; free it each time."""
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": f"{folder}/warehouse"})
    tables = Tables.at(settings.warehouse)
    ballast = Path(folder, "ballast")
    bucket = {"images/2026-01-01/apple/1.jpg": b"one"}

    def when_full(act: str, step: object) -> None:
        _fill(ballast)
        with pytest.raises(JobError, match=f"file://{folder}/warehouse/{act}.*no space is left on its disk.*orchard clean"):
            step()  # type: ignore[operator]
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
