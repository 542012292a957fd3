"""Every call of the store, the queue's and the vendor's, passes here: the one place where turns change and faults happen."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from random import Random
from typing import NoReturn, TypeVar

from obstore.exceptions import GenericError
from orchard_jobs.store_errors import explaining_store_errors

from support.simulation.clock import Clock
from support.simulation.scheduler import Scheduler

T = TypeVar("T")

_HELD_UP = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Weather:
    """How probable each fault is at a call of the store.

    Attributes:
        unavailable: a burst of 503 begins: this call and some that follow, whoever makes them, do nothing.
        lost_answer: a write lands and its answer is lost; or the client itself asks again, and is told what it finds by then.
        torn: a read gives the beginning of a file.
        late: a listing, or a table's log, shows what was there a moment ago.
        clock_set: the machine's clock jumps, forward or back, by up to two days from the store's.
        held_up: a process stands still before a write, while the others go on.
    """

    unavailable: float = 0.0
    lost_answer: float = 0.0
    torn: float = 0.0
    late: float = 0.0
    clock_set: float = 0.0
    held_up: float = 0.0

    @classmethod
    def drawn(cls, draw: Random) -> "Weather":
        """Draw some of the faults, each rare or frequent."""
        found = cls(**{one.name: draw.choice((0.0, 0.0, 0.01, 0.03)) for one in fields(cls)})
        return replace(found, held_up=draw.choice(_HELD_UP))

    @classmethod
    def calm(cls, draw: Random) -> "Weather":
        """Draw a weather in which no call fails."""
        return cls(clock_set=draw.choice((0.0, 0.0, 0.03)), held_up=draw.choice(_HELD_UP))

    @property
    def is_calm(self) -> bool:
        """Whether no call fails, whatever the clock says."""
        return replace(self, clock_set=0.0, held_up=0.0) == Weather()


class StoreCalls:
    """Lets others in before a call, kills who makes it, or makes it fail.

    Attributes:
        scheduler: who takes turns.
        clock: advances with each call.
        weather: the faults; calm until it is set.
        trace: called with each call and each fault, in words.
    """

    def __init__(self) -> None:
        self.scheduler, self.clock = Scheduler(), Clock()
        self.weather = Weather()
        self.trace: Callable[[str], None] | None = None
        self._draw = Random(0)
        self._burst_ends = self.clock.of_store

    def begin(self, draw: Random, weather: Weather) -> None:
        """Let this weather rule from now on."""
        self._draw, self.weather, self._burst_ends = draw, weather, self.clock.of_store

    def end(self) -> None:
        """Let nothing fail any more."""
        self.weather = Weather()

    def read(self, what: str, act: Callable[[], T], torn: Callable[[T, float], T] | None = None) -> T:
        """Make a call that reads; where it is torn, return what `torn` leaves of it."""
        self._arrive(what, is_write=False)
        found = act()
        if torn is not None and self._happens(self.weather.torn):
            self._tell(f"{what}: TORN")
            return torn(found, self._draw.random())
        return found

    def list(self, what: str, act: Callable[[], T], late: Callable[[datetime], T]) -> T:
        """Make a call that lists; where it is late, return what `late` gives: what was there at that moment."""
        self._arrive(what, is_write=False)
        if self._happens(self.weather.late):
            moment = self.clock.of_store - timedelta(seconds=self._draw.choice((5, 20, 60, 300)))
            self._tell(f"{what}: LATE, as of {moment:%H:%M:%S}")
            return late(moment)
        return act()

    def write(self, what: str, act: Callable[[], T]) -> T:
        """Make a call that writes. Its answer may be lost, or be the one that a client gets that asks again."""
        self._arrive(what, is_write=True)
        found = act()
        if self._happens(self.weather.lost_answer):
            if self._draw.random() < 0.5:
                self._tell(f"{what}: ANSWER LOST")
                _fail(what, "the answer was lost")
            self._tell(f"{what}: ASKED TWICE")
            return act()
        return found

    def _arrive(self, what: str, is_write: bool) -> None:
        self.scheduler.pause()
        if is_write and self._happens(self.weather.held_up):
            self.scheduler.hold_up(self._draw.randint(5, 100))
        actor = self.scheduler.current
        if actor is None:
            return
        self.clock.advance(self._draw.random() * 4)
        actor.spend(is_write)
        self._tell(what)
        if self._happens(self.weather.clock_set):
            self.clock.set_anew(self._draw)
            self._tell(f"THE CLOCK SAYS {self.clock.of_machine}")
        is_in_burst = self.clock.of_store < self._burst_ends
        if is_in_burst or self._happens(self.weather.unavailable):
            if not is_in_burst:
                self._burst_ends = self.clock.of_store + timedelta(seconds=self._draw.randint(0, 20))
            self._tell(f"{what}: 503")
            _fail(what, "503 SlowDown")

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.scheduler.current is not None and self._draw.random() < probability

    def _tell(self, what: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.scheduler.current.name if self.scheduler.current else 'nobody'}: {what}")


def _fail(what: str, words: str) -> NoReturn:
    """Fail as the warehouse does."""
    with explaining_store_errors(what):
        raise GenericError(words)
    raise AssertionError("the error was swallowed")
