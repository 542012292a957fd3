"""The real stack on a tiny DAG: it starts, runs, repairs itself, and ends without rest."""

import io
import os
import signal
import time
from pathlib import Path

import pytest
import requests
from orchard_sandbox.job_execution.processes import find_members, is_running
from orchard_sandbox.stack.following import Follower
from orchard_sandbox.stack.layout import Layout
from orchard_sandbox.stack.runs import ACTIVE_STATES
from orchard_sandbox.stack.screen import Screen
from orchard_sandbox.stack.state import read_state
from orchard_sandbox.stack.stop import stop_stack
from orchard_sandbox.stack.supervisor import Supervisor

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


@pytest.mark.end_to_end
def test_a_stack_starts_runs_repairs_itself_and_ends_without_rest(tmp_path: Path) -> None:
    for name in ("dags", "plugins"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "tiny.py").write_text(DAG)
    layout = Layout(tmp_path / "home", dags=tmp_path / "dags", plugins=tmp_path / "plugins")
    said: list[str] = []
    try:
        supervisor = Supervisor(layout, os.environ, said.append)
        state, api = supervisor.start(("image_batches",))
        assert requests.get(f"{state.api_address}/api/v2/dags", timeout=60).status_code == 401

        follower = Follower(api, supervisor.environment, supervisor.check, Screen(io.StringIO()))
        follower.start(["2026-01-05", "2026-01-06", "2026-01-07"])
        follower.follow()
        outcomes = [result.outcome for result in follower.results()]
        assert outcomes == ["published", "failed", "unchanged"]
        ((dag_id, run_id),) = follower.failed_runs()
        assert "task plan_batch failed: ValueError: no such fruit" in follower.failures(dag_id, run_id)

        said.clear()
        before = read_state(layout).processes
        Supervisor(layout, os.environ, said.append).start(("image_batches",))
        assert (said, read_state(layout).processes) == ([], before)

        os.kill(before["scheduler"].pid, signal.SIGKILL)
        while is_running(before["scheduler"]):
            time.sleep(0.05)
        supervisor = Supervisor(layout, os.environ, said.append)
        supervisor.start(("image_batches",))
        assert find_members([before["scheduler"]], "") == set()  # its workers went with it
        after = read_state(layout).processes
        assert [name for name in before if after[name] != before[name]] == ["scheduler"]
        assert all(is_running(record) for record in after.values())

        follower.start(["2026-01-08"])
        while b"sleep\x00600" not in _commands(layout):
            supervisor.check()
            time.sleep(0.2)
        said.clear()
        stop_stack(layout)
        supervisor = Supervisor(layout, {**os.environ, "WAREHOUSE": f"{tmp_path}/another"}, said.append)
        _, api = supervisor.start(("image_batches",))
        (line,) = [line for line in said if "cut off" in line]
        assert line.startswith("start: 1 runs that were cut off are ended as failed; `make run WAREHOUSE=file://")
        assert f"{layout.home}/warehouse TARGET=local` does" in line
        assert api.runs("image_batches", ACTIVE_STATES) == []

        follower = Follower(api, supervisor.environment, supervisor.check, Screen(io.StringIO()))
        follower.start(["2026-01-08"])
        while b"sleep\x00600" not in _commands(layout):
            supervisor.check()
            time.sleep(0.2)
        layout.state_file.unlink()
    finally:
        ended, left = stop_stack(layout)
    assert ended >= 6
    assert left == 0
    assert find_members([], layout.marker) == set()


def _commands(layout: Layout) -> bytes:
    found = b""
    for pid in find_members(read_state(layout).processes.values(), layout.marker):
        try:
            found += Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
    return found
