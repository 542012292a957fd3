"""Which run lists a batch next, and which run works on it.

Many events start many runs of one batch. A run that has not listed the batch yet will see every earlier upload, so it notes
that it will list (its promise), and other runs skip. No run lists while another one is between its listing and its end: it
would compute the same images again. Both rules only save work: `tables.commit_rule` keeps concurrent runs apart anyway. So
reading and writing a note need not be one step. At worst two runs both work, or one of two promises is withdrawn too early;
no upload is lost.

The order of the steps makes it safe. A run withdraws its promise *before* it lists. So a promise always means that the
listing is still to come, and an upload is never left to a run that has already listed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# States of a run that will list, and of one that others wait for.
ACTIVE = ("queued", "running")
AT_WORK = ("running",)
# As the state store of running deployments spells them.
_PROMISE, _HOLDER = "coming", "at_work"


@dataclass(frozen=True)
class RunName:
    """One run of Airflow."""

    dag_id: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.run_id} of {self.dag_id}"


class StateStore(Protocol):
    """Small values by key that outlive a run: Airflow's state store of an asset."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key's value, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Set a key's value."""

    def delete(self, key: str) -> None:
        """Remove a key, if it is there."""


@dataclass(frozen=True)
class BatchLock:
    """The lock of one batch, as one of its runs sees it.

    Attributes:
        batch_id: the batch.
        me: the run that asks.
        store: where the runs' names are kept.
        is_in: tells whether a run is in one of some states; a run that ended, or was deleted, is in none.
    """

    batch_id: str
    me: RunName
    store: StateStore
    is_in: Callable[[RunName, Sequence[str]], bool]

    def run_that_will_list(self) -> RunName | None:
        """Return another run that will list the batch after this moment, or None."""
        return self._other(_PROMISE, ACTIVE)

    def run_at_work(self) -> RunName | None:
        """Return another run that holds the lock, or None.

        A run that was cleared and is queued does not count: the runs that waited for it could hold the very slots that it needs.
        """
        return self._other(_HOLDER, AT_WORK)

    def promise_listing(self) -> None:
        """Promise that this run will list the batch after this moment, unless it fails or is skipped."""
        self._set(_PROMISE)

    def acquire(self) -> None:
        """Take the lock: from here to the end of this run the batch's other runs wait."""
        self._set(_HOLDER)

    def withdraw_promise(self) -> None:
        """Take the promise back: this run may not see what is uploaded after this moment."""
        if self._read(_PROMISE) == self.me:
            self.store.delete(self._key(_PROMISE))

    def _key(self, what: str) -> str:
        return f"{self.batch_id}/{what}"

    def _read(self, what: str) -> RunName | None:
        name = self.store.get(self._key(what))
        return RunName(*name) if name else None

    def _set(self, what: str) -> None:
        self.store.set(self._key(what), [self.me.dag_id, self.me.run_id])

    def _other(self, what: str, states: Sequence[str]) -> RunName | None:
        run = self._read(what)
        return run if run is not None and run != self.me and self.is_in(run, states) else None
