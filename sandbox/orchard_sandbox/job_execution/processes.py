"""Processes: started in sessions of their own, told apart from later ones of the same number, found and ended without rest.

It knows nothing of Airflow. On Linux it reads /proc; elsewhere it asks `ps`, which shows no environments, so that there a
process that left its group after its parents had died is not found.
"""

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "ORCHARD_STACK_ID"
_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessRecord:
    """A started process.

    Attributes:
        name: what it is in the stack.
        pid: its number, and its session's and group's.
        identity: its start, so that another process with its number is never taken for it.
        started_at: seconds since the epoch, for the uptime.
    """

    name: str
    pid: int
    identity: str
    started_at: float


@dataclass(frozen=True)
class Seen:
    """A process as the system shows it; `session` is the process group where there is no /proc."""

    parent: int
    session: int
    identity: str
    is_marked: bool


def start_process(name: str, command: list[str], environment: Mapping[str, str], log: Path, folder: Path) -> ProcessRecord:
    """Start a command in a session of its own that holds none of our streams; its output goes to a fresh log."""
    if log.exists():
        os.replace(log, log.with_suffix(".previous.log"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[process.pid] = process
    return ProcessRecord(name, process.pid, identity_of(process.pid) or "ended", time.time())


_children: dict[int, "subprocess.Popen[bytes]"] = {}


def identity_of(pid: int) -> str | None:
    """Return what tells this process from others that had or get its number; None when it does not run."""
    if pid in _children:
        _children[pid].poll()  # our own child stays a zombie until it is waited for
    seen = _read_proc(pid, b"") if _PROC.is_dir() else _scan_ps().get(pid)
    return seen.identity if seen else None


def is_running(record: ProcessRecord) -> bool:
    """Say whether the very process of the record runs."""
    return identity_of(record.pid) == record.identity


def wait_for_end(record: ProcessRecord, seconds: float) -> int | None:
    """Wait for a child of ours and return its status; None when it still runs after the seconds."""
    with suppress(subprocess.TimeoutExpired):
        return _children[record.pid].wait(seconds)
    return None


def find_members(records: Iterable[ProcessRecord], marker: str, spared: Collection[int] = ()) -> set[int]:
    """Return every process of the stack: of its sessions, with its marker in the environment, and all their descendants.

    Those of the `spared` sessions are left out.
    """
    seen = _scan(marker)
    roots = {record.pid for record in records if _owns_session(record, seen)}
    members = {pid for pid, process in seen.items() if process.is_marked or process.session in roots or pid in roots}
    grown = True
    while grown:
        children = {pid for pid, process in seen.items() if process.parent in members} - members
        members |= children
        grown = bool(children)
    return {pid for pid in members - _own_line(seen) if seen[pid].session not in spared}


# A signal and its share of the time. Airflow's api-server takes 5 s to end well; its triggerer now and then sleeps on, its
# runner gone, until it is killed.
SIGNALS = ((signal.SIGINT, 0.25), (signal.SIGTERM, 0.15), (signal.SIGKILL, 0.6))


def end_processes(
    records: Iterable[ProcessRecord],
    marker: str,
    seconds: float,
    spared: Collection[int] = (),
    signals: Iterable[tuple[signal.Signals, float]] = SIGNALS,
) -> tuple[int, int]:
    """End all processes of the stack: by one signal after the other, each with its share of the seconds.

    Returns:
        How many there were, and how many are left.
    """
    records = list(records)
    members = find_members(records, marker, spared)
    count = len(members)
    for number, share in signals:
        for pid in members:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds * share
        while (members := find_members(records, marker, spared)) and time.monotonic() < deadline:
            time.sleep(0.1)
    return count, len(members)


def _owns_session(record: ProcessRecord, seen: Mapping[int, Seen]) -> bool:
    """Say whether the session of the record's number is still the one that we began.

    The kernel gives no number away while a session has it, so a gone leader leaves its orphans to us, and another process
    with the number means that all of ours are gone.
    """
    leader = seen.get(record.pid)
    return leader is None or leader.identity == record.identity


def _own_line(seen: Mapping[int, Seen]) -> set[int]:
    """Return this process and its ancestors: a stack started from a task of another must not end its caller."""
    line, pid = set(), os.getpid()
    while pid in seen and pid not in line:
        line.add(pid)
        pid = seen[pid].parent
    return line


def _scan(marker: str) -> dict[int, Seen]:
    for process in list(_children.values()):
        process.poll()
    if not _PROC.is_dir():
        return _scan_ps()
    entry = f"{MARKER}={marker}".encode()
    found = {int(path.name): _read_proc(int(path.name), entry) for path in _PROC.iterdir() if path.name.isdigit()}
    return {pid: seen for pid, seen in found.items() if seen is not None}


def _read_proc(pid: int, entry: bytes) -> Seen | None:
    """Return one process of this user; None when it is gone, a zombie or somebody else's."""
    try:
        folder = _PROC / str(pid)
        if folder.stat().st_uid != os.getuid():
            return None
        # The command's name is in parentheses and may hold spaces and parentheses itself.
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        is_marked = bool(entry) and entry in (folder / "environ").read_bytes().split(b"\0")
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Seen(int(fields[1]), int(fields[3]), f"{boot}:{int(fields[19])}", is_marked)


def _scan_ps() -> dict[int, Seen]:
    answer = subprocess.run(["ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart="], capture_output=True, text=True)
    seen = {}
    for line in answer.stdout.splitlines():
        pid, parent, group, state, start = line.split(None, 4)
        if not state.startswith("Z"):
            seen[int(pid)] = Seen(int(parent), int(group), start.strip(), False)
    return seen
