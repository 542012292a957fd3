"""Actors that take turns: who goes on at each call of the store is drawn from a seed, so a history can be replayed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

# More than any operation takes: whoever is still at work then would never end.
_MOST_TURNS = 200_000


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass(eq=False)
class Actor:
    """A process: one use case, one job, or one try of a task.

    Attributes:
        name: for the trace.
        work: what it does.
        dies_at_call: the call of the store before which it is killed; None when it lives.
        dies_at_write: the same for a call that writes.
        value: what its work returned.
        error: what its work raised.
        is_over: whether it has ended.
        seen: what it last read of each table, for the model of what a plan compares with.
        wakes_at: the turn until which it is held up, where others can go on.
    """

    name: str
    work: Callable[[], Any]
    dies_at_call: int | None = None
    dies_at_write: int | None = None
    value: Any = None
    error: BaseException | None = None
    is_over: bool = False
    seen: dict[str, Any] = field(default_factory=dict)
    wakes_at: int = 0

    def spend(self, is_write: bool) -> None:
        """Count one call of the store, and die if it is the one."""
        if self.dies_at_call is not None:
            self.dies_at_call -= 1
        if is_write and self.dies_at_write is not None:
            self.dies_at_write -= 1
        if -1 in (self.dies_at_call, self.dies_at_write):
            self.dies_at_call = self.dies_at_write = None
            raise Killed(self.name)

    def run(self) -> None:
        """Do the work; nothing leaves the actor but what it keeps."""
        try:
            self.value = self.work()
        except (Killed, Exception) as error:
            self.error = error
        self.is_over = True


class Scheduler:
    """Runs actors one at a time, and changes between them only where they pause."""

    def __init__(self) -> None:
        self.current: Actor | None = None
        self.turn = 0
        self._greenlets: dict[Actor, Any] = {}
        self._over: list[Actor] = []
        self._hub: Any = None

    def spawn(self, actor: Actor) -> Actor:
        """Let an actor take part from now on."""
        self._greenlets[actor] = greenlet(actor.run)
        return actor

    def pause(self) -> None:
        """Let the others in. Outside of actors nothing happens."""
        if self.current is not None:
            self._hub.switch()

    def hold_up(self, turns: int) -> None:
        """Let the others go on for some turns."""
        if self.current is not None:
            self.current.wakes_at = self.turn + turns
            self.pause()

    def wait(self, is_so: Callable[[], bool]) -> None:
        """Pause until something is so."""
        while not is_so():
            assert self.current is not None, "only an actor can wait for others"
            self.pause()

    def run(self, draw: Random, persistence: float) -> None:
        """Run until every actor is over.

        Args:
            draw: draws who is next.
            persistence: the probability that an actor that has paused goes on.
        """
        self._hub = getcurrent()
        actor: Actor | None = None
        for _ in range(_MOST_TURNS):
            if not self._greenlets:
                return
            self.turn += 1
            if actor is None or actor.wakes_at > self.turn or draw.random() >= persistence:
                actor = draw.choice([one for one in self._greenlets if one.wakes_at <= self.turn] or list(self._greenlets))
            actor = self._step(actor)
        raise AssertionError(f"{[actor.name for actor in self._greenlets]} do not come to an end")

    def _step(self, actor: Actor) -> Actor | None:
        """Let an actor go on to its next pause; return it, or None when it is over."""
        self.current = actor
        try:
            # A greenlet that was spawned by an actor would end in it, not here.
            self._greenlets[actor].parent = self._hub
            self._greenlets[actor].switch()
        finally:
            self.current = None
        if not actor.is_over:
            return actor
        del self._greenlets[actor]
        self._over.append(actor)
        return None

    def close(self) -> None:
        """End the actors that are still at work, when a history has failed."""
        for waiting in list(self._greenlets.values()):
            waiting.parent = getcurrent()
            waiting.throw()
        self._greenlets.clear()

    def take_over(self) -> list[Actor]:
        """Return the actors that ended since the last call."""
        found, self._over = self._over, []
        return found
