"""The one life cycle of a run, whatever the vendor calls its states: prepare, start under a guard, watch, end.

The vendors' stand-ins translate their requests into a job, and its states and its Ending into their own. It knows no request.
"""

import logging
import re
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import ClassVar, Literal, Self

from orchard_sandbox.job_execution.job import GuardedJob, MissingError
from orchard_sandbox.job_execution.records import Record

log = logging.getLogger(__name__)
CANCEL_SECONDS = 5.0
LOST = "The stand-in ended while the run was under way, and its processes with it."
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


@dataclass(kw_only=True)
class Run(Record):
    """The record of a run, and its way to an end, on which it can be cancelled at any moment.

    Attributes:
        STATES: the vendor's names of the states `running` and `ending`.
        ENDS: the vendor's name of each kind of Ending.
    """

    STATES: ClassVar[Mapping[str, str]]
    ENDS: ClassVar[Mapping[str, str]]
    _cancelled: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _grace: float = field(default=CANCEL_SECONDS, init=False, repr=False)

    @classmethod
    def restored(cls, folder: Path) -> dict[str, Self]:
        """Return all runs that lie in a folder, by their ids; no process of theirs has outlived the stand-in."""
        runs = {run.id: run for run in cls.read_all(folder)}
        for run in runs.values():
            if not run.is_over:
                run.lose(LOST)
        return runs

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end."""
        return self.state in self.ENDS.values()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled.is_set()

    @property
    def log_folder(self) -> Path:
        """The folder of its `stdout` and `stderr`."""
        return self.folder / "task"

    def log_text(self, name: str) -> str:
        """Return what it wrote to `stdout` or `stderr`."""
        path = self.log_folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    @abstractmethod
    def headline(self) -> tuple[str, str]:
        """Return how it ended, and the message about that."""

    @abstractmethod
    def lose(self, reason: str) -> None:
        """End a run that nothing executes any more."""

    def cancel(self, seconds: float = CANCEL_SECONDS) -> None:
        """Have it end as cancelled; its processes get SIGTERM, and SIGKILL after the seconds."""
        self._grace = seconds
        self._cancelled.set()

    def begin(self, work: Callable[[], None]) -> None:
        """Do the work in a thread of its own; a defect of the stand-in must not leave the run unfinished."""

        def lead() -> None:
            try:
                work()
            except Exception as error:
                log.exception("run %s", self.id)
                self.lose(f"the stand-in failed: {error!r}")

        threading.Thread(target=lead, name=self.id, daemon=True).start()

    def execute(self, job: GuardedJob, seconds: float = 0, since: float | None = None) -> Ending:
        """Run a job to its end; the states that this leads to are entered, but for the last one.

        Args:
            job: what to run.
            seconds: the time limit; 0 for none.
            since: when the limit's time began (monotonic); None for the start of the process.
        """
        job.create()
        try:
            if not self.is_cancelled:
                job.prepare()
            if self.is_cancelled:
                self.change(self.STATES["ending"])
                return Ending("cancelled", "before it ran")
            job.start()
            self.change(self.STATES["running"])
            return self._watch(job, (since or time.monotonic()) + seconds if seconds else float("inf"))
        except MissingError as error:
            job.write_error(str(error))
            return Ending("failed", str(error), 1)
        finally:
            job.finish()

    def _watch(self, job: GuardedJob, deadline: float) -> Ending:
        ending = None
        while (status := job.status()) is None:
            if ending is None and (self.is_cancelled or time.monotonic() >= deadline):
                ending = Ending("cancelled", "on request") if self.is_cancelled else Ending("timed_out")
                self.change(self.STATES["ending"])
                job.end(self._grace)
            time.sleep(_POLL_SECONDS)
        if ending or status == 0:
            return ending or Ending("succeeded", status=0)
        lines = [line for name in ("stderr", "stdout") for line in self.log_text(name).splitlines()]
        return Ending("failed", last_error(lines, status), status)


def last_error(lines: Sequence[str], status: int) -> str:
    """Return the line of a driver's output that tells best why it ended: its last exception, else its last plain line.

    Args:
        lines: stderr, then stdout: Spark puts all that a Python driver writes, its traceback too, on stdout.
        status: the exit status; above 128 a signal ended the driver: no line foretells SIGKILL, only an exception another one.
    """
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    if status == 128 + SIGKILL or (status > 128 and not exceptions):
        return f"the driver was ended by signal {status - 128}"
    others = [line for line in lines if line.strip() and not _NOTICE.match(line)]
    return (exceptions or others or ["the driver wrote no error"])[-1].strip()
