"""Which attempt at a piece of work is under way on a target whose jobs outlive their submitter.

Attempt n + 1 begins when the failure of attempt n is recorded. A token names the attempt: submitting the work again while a job
does it reaches that job, and a job that is known to have failed is never repeated.
"""

import hashlib
import json
from dataclasses import dataclass

from orchard_jobs.contract.layout import AttemptPath, attempts_folder, parse
from orchard_jobs.storage import Warehouse


@dataclass(frozen=True)
class Attempts:
    """The attempts at one piece of work.

    Attributes:
        warehouse: where they are recorded.
        work: the work digest.
    """

    warehouse: Warehouse
    work: str

    @property
    def current(self) -> int:
        """The attempt that is active, or begins: 1 + the recorded failures."""
        found = (parse(path) for path, _ in self.warehouse.list(attempts_folder(self.work)))
        return 1 + sum(isinstance(path, AttemptPath) and path.event == "ended" for path in found)

    def token(self, attempt: int) -> str:
        """Return the attempt's idempotency token: 64 hex digits, another in each warehouse."""
        return hashlib.sha256(f"{self.warehouse.uri}\n{self.work}\n{attempt}".encode()).hexdigest()

    def claim(self, attempt: int) -> bool:
        """Record that an attempt is about to be submitted; False where that is recorded already."""
        return self.warehouse.create(str(AttemptPath(self.work, attempt, "claimed")), b"{}")

    def record_start(self, attempt: int, job: dict[str, str]) -> None:
        """Record the job that an attempt's token reached: the names by which its vendor knows it."""
        self.warehouse.create(str(AttemptPath(self.work, attempt, "started")), json.dumps(job).encode())

    def started(self, attempt: int) -> dict[str, str] | None:
        """Return the job of an attempt, or None when none is recorded."""
        text = self.warehouse.read_if_there(str(AttemptPath(self.work, attempt, "started")))
        return None if text is None else json.loads(text)

    @property
    def last_end(self) -> str | None:
        """How the previous attempt failed, in the vendor's words; None if there is none."""
        last = self.current - 1
        if not last:
            return None
        end = json.loads(self.warehouse.read(str(AttemptPath(self.work, last, "ended"))))
        return f"attempt {last} ended as {end['state']}: {end['reason'] or 'no reason given'}"

    def record_end(self, attempt: int, state: str, reason: str) -> None:
        """Record an attempt's failure: the vendor's state and words. Whoever sees it first records it."""
        end = {"state": state, "reason": reason}
        self.warehouse.create(str(AttemptPath(self.work, attempt, "ended")), json.dumps(end).encode())
