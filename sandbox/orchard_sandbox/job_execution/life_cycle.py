"""The one life cycle of a run, whatever the vendor calls its states: prepare, start under a guard, watch, end.

The vendors' stand-ins translate their requests into a job and an Ending into their states. It knows no request.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchard_sandbox.job_execution.job import GuardedJob, MissingError

log = logging.getLogger(__name__)
CANCEL_SECONDS = 5.0
_POLL_SECONDS = 0.05
_EXCEPTION = re.compile(r"(Caused by: |Exception in thread \S+ )?[\w.$]*(Error|Exception|Interrupt|Exit)\b")
_NOTICE = re.compile(r"WARNING: |\S+ \S+ (INFO|WARN|DEBUG)\b|\s")


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        kind: what happened.
        reason: why it failed, in one line.
        status: the exit status of its process; None when none ran to its end.
    """

    kind: Literal["succeeded", "failed", "cancelled", "timed_out"]
    reason: str = ""
    status: int | None = None


class LifeCycle:
    """One run's way to its end; it can be cancelled at any moment.

    Attributes:
        state_seconds: how long a state that leads to another one lasts at least.
        minute_seconds: how long a minute of a time limit lasts.
    """

    state_seconds = 0.2
    minute_seconds = 60.0

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._grace = CANCEL_SECONDS

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled.is_set()

    def cancel(self, seconds: float = CANCEL_SECONDS) -> None:
        """Have the run end as cancelled; its processes get SIGTERM, and SIGKILL after the seconds."""
        self._grace = seconds
        self._cancelled.set()

    def linger(self) -> None:
        """Stay in the present state for as long as it lasts, or until the run is cancelled."""
        self._cancelled.wait(self.state_seconds)

    def wait_for(self, is_ready: Callable[[], bool]) -> None:
        """Wait until something is so, or the run is cancelled."""
        while not is_ready() and not self._cancelled.wait(_POLL_SECONDS):
            pass

    def lead(self, name: str, work: Callable[[], None], fail: Callable[[str], None]) -> None:
        """Do the work in its own thread; a defect of the stand-in must not leave the run unfinished."""

        def run() -> None:
            try:
                work()
            except Exception as error:
                log.exception("run %s", name)
                fail(f"the stand-in failed: {error!r}")

        threading.Thread(target=run, name=name, daemon=True).start()

    def execute(self, job: GuardedJob, note: Callable[[str], None], seconds: float = 0, since: float | None = None) -> Ending:
        """Run a job to its end.

        Args:
            job: what to run.
            note: hears `running` and `ending` as they begin.
            seconds: the time limit; 0 for none.
            since: when the limit's time began (monotonic); None for the start of the process.
        """
        if self.is_cancelled:
            return self._cancel_early(note)
        job.create()
        try:
            job.prepare()
            if self._cancelled.is_set():
                return self._cancel_early(note)
            job.start()
            note("running")
            return self._watch(job, note, (since or time.monotonic()) + seconds if seconds else float("inf"))
        except MissingError as error:
            job.write_error(str(error))
            return Ending("failed", str(error), 1)
        finally:
            job.finish()

    def _cancel_early(self, note: Callable[[str], None]) -> Ending:
        note("ending")
        time.sleep(self.state_seconds)
        return Ending("cancelled", "before it ran")

    def _watch(self, job: GuardedJob, note: Callable[[str], None], deadline: float) -> Ending:
        ending = None
        while (status := job.status()) is None:
            if ending is None and (self.is_cancelled or time.monotonic() >= deadline):
                ending = Ending("cancelled", "on request") if self.is_cancelled else Ending("timed_out")
                note("ending")
                job.end(self._grace)
            time.sleep(_POLL_SECONDS)
        if ending or status == 0:
            return ending or Ending("succeeded", status=0)
        return Ending("failed", last_error(job.read_lines(), status), status)


def last_error(lines: Sequence[str], status: int) -> str:
    """Return the line of a driver's output that tells best why it ended: its last exception, else its last plain line.

    Args:
        lines: stderr, then stdout: Spark puts all that a Python driver writes, its traceback too, on stdout.
        status: the exit status; above 128 a signal ended the driver, and no line but an exception says anything about it.
    """
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    if not exceptions and status > 128:
        return f"the driver was ended by signal {status - 128}"
    others = [line for line in lines if line.strip() and not _NOTICE.match(line)]
    return (exceptions or others or ["the driver wrote no error"])[-1].strip()
