"""A run's tasks as Airflow executes them: tried again after a fault or a kill, and now and then twice at once."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from orchard_jobs.errors import JobError

from support.simulation.scheduler import Actor, Killed
from support.simulation.store_calls import StoreCalls

T = TypeVar("T")
_RETRY_SECONDS = 60


class RunFailed(Exception):
    """A task's last try failed: the run is over, and others have to go on with its work."""


@dataclass(frozen=True)
class Dangers:
    """What happens to the tries of tasks.

    Attributes:
        killed: how probable it is that a try is killed.
        tried_twice: how probable it is that a task is tried again while its first try, thought dead, goes on.
        tries: how many tries a task has.
    """

    killed: float = 0.0
    tried_twice: float = 0.0
    tries: int = 3

    @classmethod
    def drawn(cls, draw: Random) -> "Dangers":
        """Draw some of the dangers."""
        return cls(draw.choice((0.0, 0.0, 0.1, 0.3)), draw.choice((0.0, 0.0, 0.1, 0.4)), draw.choice((1, 3)))

    def mark(self, actor: Actor, draw: Random) -> Actor:
        """Draw whether an actor is killed, and before which call of the store."""
        if draw.random() < self.killed:
            if draw.random() < 0.5:
                actor.dies_at_write = draw.randint(0, 12)
            else:
                actor.dies_at_call = draw.randint(0, 60)
        return actor


@dataclass
class TaskRunner:
    """Executes tasks.

    Attributes:
        calls: where the calls of the store pass.
        dangers: what happens to tries.
        draw: draws what happens.
        can_fail: whether calls of the store fail, or files were damaged, so that any error may come of it.
    """

    calls: StoreCalls
    dangers: Dangers = Dangers()
    draw: Random = Random(0)
    can_fail: bool = False

    def run(self, name: str, work: Callable[[], T]) -> T:
        """Return what a task's work returns.

        Raises:
            RunFailed: every try failed.
        """
        if self.calls.scheduler.current is None:
            return work()
        told: BaseException | None = None
        for number in range(self.dangers.tries):
            found = self._try(f"{name} try {number}", work)
            if found.error is None:
                value: T = found.value
                return value
            self.check(found.error)
            told = found.error
            self.calls.clock.advance(_RETRY_SECONDS)
        raise RunFailed(f"{name}: {type(told).__name__}: {told}") from told

    def _try(self, name: str, work: Callable[[], T]) -> Actor:
        current = self.calls.scheduler.current
        assert current is not None
        if self.draw.random() >= self.dangers.tried_twice:
            actor = self.dangers.mark(Actor(name, work), self.draw)
            current.dies_at_call, current.dies_at_write = actor.dies_at_call, actor.dies_at_write
            actor.run()
            current.dies_at_call = current.dies_at_write = None
            return actor
        both = [self.dangers.mark(Actor(f"{current.name} {name} {which}", work), self.draw) for which in ("first", "second")]
        for actor in both:
            self.calls.scheduler.spawn(actor)
        self.calls.scheduler.wait(lambda: all(one.is_over for one in both) or any(one.is_over and not one.error for one in both))
        return next((one for one in both if one.is_over and not one.error), both[-1])

    def check(self, error: BaseException) -> None:
        """Let no error pass that a fault does not explain."""
        if isinstance(error, AssertionError):
            raise error
        is_explained = self.can_fail or isinstance(error, (Killed, JobError))
        assert is_explained, f"{type(error).__name__} although nothing failed: {error}"
