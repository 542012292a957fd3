"""Faults on demand: a test orders them, and a stand-in's answers and jobs suffer them."""

import threading
from collections.abc import Iterable
from typing import Literal, get_args

from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt

AnswerFault = Literal["throttle", "error", "error_after", "delay", "drop_before", "drop_after"]
JobFault = Literal["kill_job", "out_of_memory", "no_execution", "hold"]
ANSWERS: tuple[str, ...] = get_args(AnswerFault)


class Fault(BaseModel, extra="forbid"):
    """An ordered fault.

    Attributes:
        kind: of answers, `throttle` (429), `error` (500), `error_after` (500 although it took effect), `delay`, `drop_before` and
            `drop_after` (the connection is closed without an answer, before or after the call took effect); of jobs, `kill_job`
            (SIGKILL while it runs), `out_of_memory` (as the vendor ends such a driver), `no_execution` (it fails, nothing was
            run) and `hold` (no job is started until it is taken back).
        operation: whose answers suffer, as `StartJobRun`; `*` for all. Means nothing for a job.
        times: how many calls or jobs suffer; 0 for all until it is taken back.
        seconds: of `delay`; the Retry-After of `throttle`; how long a job runs, or seems to, before it is ended.
    """

    kind: AnswerFault | JobFault
    operation: str = "*"
    times: NonNegativeInt = 1
    seconds: NonNegativeFloat = 1.0


class Faults:
    """The faults that were ordered and have not been suffered yet: first come, first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.ordered: list[Fault] = []

    def holds_jobs(self) -> bool:
        """Say whether no job may start now."""
        return any(fault.kind == "hold" for fault in list(self.ordered))

    def take(self, kinds: Iterable[str], operation: str = "*") -> Fault | None:
        """Return the next fault of the kinds for the operation, and count it as suffered."""
        with self._lock:
            for fault in self.ordered:
                if fault.kind in kinds and fault.operation in ("*", operation):
                    if fault.times == 1:
                        self.ordered.remove(fault)
                    fault.times = max(fault.times - 1, 0)
                    return fault
        return None
