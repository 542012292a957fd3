"""What runs: `stack.json`, written with each start so that a stop works at any moment; its lock, and its end.

Standard library only.
"""

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import IO, Any

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.files import write_whole
from orchard_sandbox.job_execution.processes import ProcessRecord, end_processes, identity_of
from orchard_sandbox.stack.stack_paths import Layout

STOP_SECONDS = 25.0


@dataclass
class StackState:
    """The stack's record.

    Attributes:
        processes: every started process by name; an ended one stays until it is replaced or the stack is stopped.
        s3_port: the S3 stand-in's port; 0 before its first start.
        api_port: the port of Airflow's API and UI; 0 before its first start.
        digests: of each of Airflow's processes, the digest of the settings and code that it was started with; of a stand-in its
            options.
    """

    processes: dict[str, ProcessRecord] = field(default_factory=dict)
    s3_port: int = 0
    api_port: int = 0
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def s3_address(self) -> str:
        """The S3 stand-in's URL."""
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def api_address(self) -> str:
        """The URL of Airflow's UI and API."""
        return f"http://127.0.0.1:{self.api_port}"


def read_state(layout: Layout) -> StackState:
    """Return the recorded state; an empty one when there is none or it cannot be read (the marker still finds processes)."""
    try:
        stored: dict[str, Any] = json.loads(layout.state_file.read_text())
        processes = {name: ProcessRecord(**record) for name, record in stored.pop("processes").items()}
        known = {one.name for one in fields(StackState)}  # another release's record may hold others
        return StackState(processes, **{name: value for name, value in stored.items() if name in known})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return StackState()


def write_state(layout: Layout, state: StackState) -> None:
    """Record the state."""
    write_whole(layout.state_file, json.dumps(asdict(state), indent=1))


@contextmanager
def hold_lock(layout: Layout, command: str) -> Iterator[None]:
    """Hold the stack's lock; raise SandboxError when another command holds it."""
    with layout.lock_file.open("a+") as lock:
        if not _try_lock(lock):
            holder = _holder(layout)
            who = f"`make {holder.get('command', 'run')}` (process {holder.get('pid', 'unknown')})"
            raise SandboxError(f"another {who} works on {layout.home}: wait for it, or end it and the stack by `make stop`")
        _sign(lock, command)
        yield


@contextmanager
def take_lock(layout: Layout, command: str, seconds: float = 20) -> Iterator[None]:
    """Hold the stack's lock, ending the command that holds it: a stop must never be refused."""
    with layout.lock_file.open("a+") as lock:
        number, deadline = signal.SIGTERM, time.monotonic()
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                holder = _holder(layout)
                if holder and identity_of(holder["pid"]) == holder["identity"]:
                    with suppress(ProcessLookupError):
                        os.kill(holder["pid"], number)
                number, deadline = signal.SIGKILL, deadline + seconds
            time.sleep(0.1)
        _sign(lock, command)
        yield


def _try_lock(lock: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sign(lock: IO[str], command: str) -> None:
    """Write who holds the lock; on a full disk the lock is held all the same."""
    text = json.dumps({"pid": os.getpid(), "identity": identity_of(os.getpid()), "command": command})
    with suppress(OSError):
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), text.encode())


def _holder(layout: Layout) -> dict[str, Any]:
    with suppress(ValueError):
        holder: dict[str, Any] = json.loads(layout.lock_file.read_text())
        return holder
    return {}


def stop_stack(layout: Layout) -> tuple[int, int]:
    """End every process of the stack and return how many there were and how many are left; works without any record."""
    state = read_state(layout)
    ended, left = end_processes(state.processes.values(), layout.marker, STOP_SECONDS)
    if not left:
        state.processes.clear()
        try:
            write_state(layout, state)
        except OSError:  # a full disk: without a record the next start chooses new ports
            layout.state_file.unlink(missing_ok=True)
    return ended, left


def remove_home(layout: Layout) -> None:
    """Remove everything that the stack has written; raise SandboxError for a folder that it did not make."""
    if not layout.is_ours():
        raise SandboxError(f"{layout.home} was not made by Orchard, so it is not removed: look at ORCHARD_HOME")
    shutil.rmtree(layout.home)
