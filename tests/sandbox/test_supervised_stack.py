"""The real stack on a tiny DAG: it starts, runs, repairs itself, and ends without rest.

Each test starts what it finds down, so that it also runs alone.
"""

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from botocore.exceptions import ClientError
from orchard_sandbox.job_execution.processes import find_members, is_running
from orchard_sandbox.s3.landing import aws_client
from orchard_sandbox.stack.following import Follower
from orchard_sandbox.stack.runs import ACTIVE_STATES
from orchard_sandbox.stack.screen import Screen
from orchard_sandbox.stack.stack_paths import USER, Layout
from orchard_sandbox.stack.stack_state import read_state, stop_stack, write_state
from orchard_sandbox.stack.supervisor import Supervisor

pytestmark = pytest.mark.end_to_end

DAG = """
from airflow.sdk import CronPartitionTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException


@dag(schedule=CronPartitionTimetable("0 0 1 1 *", timezone="UTC", key_format="%Y-%m-%d"), catchup=False)
def image_batches():
    @task(pool="spark")
    def plan_batch(partition_key=None):
        if partition_key == "2026-01-06":
            raise ValueError("no such fruit")
        if partition_key == "2026-01-07":
            raise AirflowSkipException("nothing differs")
        if partition_key == "2026-01-08":
            import subprocess

            subprocess.run(["sleep", "600"], start_new_session=True)

    @task
    def publish():
        print("published")

    plan_batch() >> publish()


image_batches()
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    folder = tmp_path_factory.mktemp("supervised")
    for name in ("dags", "plugins"):
        (folder / name).mkdir()
    (folder / "dags" / "tiny.py").write_text(DAG)
    layout = Layout(folder / "home", dags=folder / "dags", plugins=folder / "plugins")
    yield layout
    assert stop_stack(layout)[1] == 0


class Started:
    """A stack that was just started, and what the start said."""

    def __init__(self, layout: Layout, **variables: str) -> None:
        self.layout = layout
        self.said: list[str] = []
        self.supervisor = Supervisor(layout, os.environ | variables, self.said.append)
        self.state, self.api = self.supervisor.start(("image_batches",))
        check, environment = self.supervisor.check, self.supervisor.environment
        self.follower = Follower(self.api, environment, check, Screen(io.StringIO()))

    def start_endless_run(self) -> None:
        """Start a run whose task sleeps in a session of its own."""
        self.follower.start(["2026-01-08"])
        while b"sleep\x00600" not in _commands(self.layout):
            self.supervisor.check()
            time.sleep(0.2)


def _commands(layout: Layout) -> bytes:
    found = b""
    for pid in find_members(read_state(layout).processes.values(), layout.marker):
        try:
            found += Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
    return found


def test_a_log_in_is_needed(layout: Layout) -> None:
    address = Started(layout).state.api_address
    assert requests.get(f"{address}/api/v2/dags", timeout=60).status_code == 401


def test_runs_are_followed_to_what_they_came_to(layout: Layout) -> None:
    follower = Started(layout).follower
    follower.start(["2026-01-05", "2026-01-06", "2026-01-07"])
    follower.settle(has_uploaded=False)
    assert [result.outcome for result in follower.results()] == ["published", "failed", "unchanged"]
    ((dag_id, run_id),) = follower.failed_runs()
    assert "task plan_batch failed: ValueError: no such fruit" in follower.failures(dag_id, run_id)


def test_a_burst_of_started_runs_is_answered(layout: Layout) -> None:
    """Each writes to SQLite on the event loop and in a thread: they used to wait for each other until the time-out of 120 s."""
    address = Started(layout).state.api_address
    log_in = {"username": USER, "password": json.loads(layout.password_file.read_text())[USER]}
    token = requests.post(f"{address}/auth/token", json=log_in, timeout=60).json()["access_token"]

    def start(_: int) -> int:
        body = {"logical_date": None, "partition_key": "2026-01-07"}
        url, headers = f"{address}/api/v2/dags/image_batches/dagRuns", {"Authorization": f"Bearer {token}"}
        return requests.post(url, json=body, headers=headers, timeout=300).status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(start, range(16))) == [200] * 16


def test_a_second_start_leaves_a_whole_stack_alone(layout: Layout) -> None:
    Started(layout)
    before = read_state(layout).processes
    assert Started(layout).said == []
    assert read_state(layout).processes == before


def test_of_a_stack_only_what_is_down_is_started(layout: Layout) -> None:
    Started(layout)
    before = read_state(layout).processes
    os.kill(before["scheduler"].pid, signal.SIGKILL)
    while is_running(before["scheduler"]):
        time.sleep(0.05)
    Started(layout)
    assert find_members([before["scheduler"]], "") == set()  # its workers went with it
    after = read_state(layout).processes
    assert [name for name in before if after[name] != before[name]] == ["scheduler"]
    assert all(is_running(record) for record in after.values())


def test_no_job_can_be_submitted_to_a_stack_with_local_jobs(layout: Layout) -> None:
    emr = aws_client("emr", Started(layout).supervisor.environment)
    with pytest.raises(ClientError, match="emr is not served here"):
        emr.list_clusters()


def test_a_stand_in_of_an_earlier_release_starts_anew_on_its_port(layout: Layout) -> None:
    before = Started(layout).state
    state = read_state(layout)
    del state.digests["s3-stand-in"]
    write_state(layout, state)
    after = Started(layout).state
    assert [name for name in before.processes if after.processes[name] != before.processes[name]] == ["s3-stand-in"]
    assert after.s3_port == before.s3_port


def test_runs_that_were_cut_off_are_ended_in_another_warehouse(layout: Layout, tmp_path: Path) -> None:
    Started(layout).start_endless_run()
    stop_stack(layout)
    other = Started(layout, WAREHOUSE=f"{tmp_path}/another")
    (line,) = [line for line in other.said if "cut off" in line]
    assert line.startswith("start: 1 runs that were cut off are ended as failed; `make run WAREHOUSE=file://")
    assert f"{layout.home}/warehouse TARGET=local` does" in line
    assert other.api.runs("image_batches", ACTIVE_STATES) == []


def test_a_stop_without_a_record_leaves_nothing(layout: Layout) -> None:
    Started(layout).start_endless_run()
    layout.state_file.unlink()
    ended, left = stop_stack(layout)
    assert ended >= 6
    assert left == 0
    assert find_members([], layout.marker) == set()
