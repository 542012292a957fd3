"""Whose turn it is: which run will list a batch next, and which one is at work on it.

Many events lead to many runs of one batch. One that will list the batch later sees all that an earlier event told of, so a run
gives way to it; and no run lists while another one is between its listing and its end, for it would compute the same images
again. Both only save work: runs that meet all the same are kept apart by the commit rule of `tables`. So looking and setting need
not be one step: two that look at once both work, or the one promise of two is taken back too early, and no upload is lost.

The order of the steps is what makes it safe. A run takes its name off the list of coming ones *before* it lists. So whoever
reads that name there knows that the listing is still to come, and an upload is never left to a run that has listed already.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# States of a run that will list, and of one that others wait for.
ACTIVE = ("queued", "running")
AT_WORK = ("running",)


@dataclass(frozen=True)
class RunName:
    """One run of Airflow."""

    dag_id: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.run_id} of {self.dag_id}"


class Store(Protocol):
    """Small values by key that outlive a run: Airflow's state store of an asset."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key's value, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Set a key's value."""

    def delete(self, key: str) -> None:
        """Remove a key, if it is there."""


@dataclass(frozen=True)
class Turns:
    """The turns of one batch, as one of its runs sees them.

    Attributes:
        batch_id: the batch.
        me: the run that asks.
        store: where the names stand.
        is_in: says whether a run is in one of some states; a run that ended, or was deleted, is in none.
    """

    batch_id: str
    me: RunName
    store: Store
    is_in: Callable[[RunName, Sequence[str]], bool]

    def coming(self) -> RunName | None:
        """Return another run that will list the batch after this moment, or None."""
        return self._other("coming", ACTIVE)

    def at_work(self) -> RunName | None:
        """Return another run that is between its turn and its end, or None.

        One that was cleared and is queued does not count: those that waited for it could hold the very places that it needs.
        """
        return self._other("at_work", AT_WORK)

    def enlist(self) -> None:
        """Promise that this run will list the batch after this moment, unless it fails or is skipped."""
        self._set("coming")

    def take(self) -> None:
        """Take the turn: from here to the end of this run the batch's other runs wait."""
        self._set("at_work")

    def begin_listing(self) -> None:
        """Take back the promise: whatever is uploaded after this moment may not be seen by this run."""
        if self._read("coming") == self.me:
            self.store.delete(self._key("coming"))

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
