"""The end of a stack: every process ended and counted, or all of it removed. Standard library only."""

import shutil

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.job_execution.processes import end_processes
from orchard_sandbox.stack.layout import Layout
from orchard_sandbox.stack.state import read_state, write_state

STOP_SECONDS = 25.0


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
        layout.address_file.unlink(missing_ok=True)
    return ended, left


def remove_home(layout: Layout) -> None:
    """Remove everything that the stack has written; raise SandboxError for a folder that it did not make."""
    if not layout.is_ours():
        raise SandboxError(f"{layout.home} was not made by Orchard, so it is not removed: look at ORCHARD_HOME")
    shutil.rmtree(layout.home)
