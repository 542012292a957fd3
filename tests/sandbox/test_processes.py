"""The end of a stack finds every process of it, and never one of somebody else's."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from orchard_sandbox.job_execution.processes import (
    MARKER,
    ProcessRecord,
    end_processes,
    find_members,
    identity_of,
    is_running,
    start_process,
    wait_for_end,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="without /proc no marker is read")
MARK = f"test-{os.getpid()}"
IGNORES = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print(1, flush=True); time.sleep(600)"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ProcessRecord]]:
    started: list[ProcessRecord] = []

    def start_one(code: str, marked: bool = True, **variables: str) -> ProcessRecord:
        environment = {**os.environ, **variables, **({MARKER: MARK} if marked else {})}
        log = tmp_path / f"{len(started)}.log"
        started.append(start_process("one", [sys.executable, "-c", code], environment, log, tmp_path))
        return started[-1]

    yield start_one
    end_processes(started, MARK, 2)


def test_a_process_holds_none_of_our_streams_and_leads_its_own_session(start: Callable[..., ProcessRecord]) -> None:
    record = start("import time; time.sleep(600)")
    assert os.getsid(record.pid) == record.pid
    streams = {os.readlink(f"/proc/{record.pid}/fd/{number}") for number in range(3)}
    assert streams.isdisjoint(os.readlink(f"/proc/self/fd/{number}") for number in (1, 2))
    assert "/dev/null" in streams


def test_a_willing_process_ends_with_its_children(start: Callable[..., ProcessRecord]) -> None:
    record = start("import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)")
    wait_for(lambda: len(find_members([record], MARK)) == 2)
    assert end_processes([record], MARK, 5) == (2, 0)
    assert not is_running(record)


def test_one_that_ignores_signals_is_killed_within_the_seconds(start: Callable[..., ProcessRecord], tmp_path: Path) -> None:
    record = start(IGNORES)
    wait_for((tmp_path / "0.log").read_text)
    assert end_processes([record], MARK, 1) == (1, 0)


def test_orphans_are_found_by_their_session_or_their_marker(start: Callable[..., ProcessRecord]) -> None:
    # One child stays in the session without the marker, the other leaves it with the marker, as Spark's Java may.
    code = (
        "import os, subprocess, time\n"
        f"bare = {{k: v for k, v in os.environ.items() if k != '{MARKER}'}}\n"
        "subprocess.Popen(['sleep', '600'], env=bare)\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "time.sleep(600)"
    )
    record = start(code)
    wait_for(lambda: len(find_members([record], MARK)) == 3)
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: not is_running(record))
    assert len(find_members([record], MARK)) == 2
    assert end_processes([record], MARK, 5) == (2, 0)


def test_without_any_record_the_marker_suffices(start: Callable[..., ProcessRecord]) -> None:
    start("import time; time.sleep(600)")
    assert end_processes([], MARK, 5) == (1, 0)


def test_a_recycled_number_is_never_ended() -> None:
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        identity = identity_of(stranger.pid)
        assert identity is not None
        boot, _, start = identity.rpartition(":")
        for other in (f"{boot}:{int(start) - 1}", f"another boot:{start}"):
            record = ProcessRecord("gone", stranger.pid, other, 0.0)
            assert not is_running(record)
            assert end_processes([record], MARK, 1) == (0, 0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_spared_session_stays_and_so_does_the_caller(
    start: Callable[..., ProcessRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, ended = start("import time; time.sleep(600)"), start("import time; time.sleep(600)")
    own = ProcessRecord("self", os.getpid(), identity_of(os.getpid()) or "", 0.0)
    assert os.getpid() not in find_members([own], MARK)
    assert end_processes([ended], MARK, 5, spared={kept.pid}) == (1, 0)
    assert is_running(kept)


def test_an_ended_child_does_not_run_although_nobody_has_waited_for_it(start: Callable[..., ProcessRecord]) -> None:
    record = start("pass")
    wait_for(lambda: not is_running(record))
    assert wait_for_end(record, 5) == 0
    assert not is_running(dataclasses.replace(record, pid=2**22 + 1))
