"""A clock that advances with the calls of the store, and jumps."""

from datetime import UTC, datetime, timedelta, tzinfo
from random import Random
from typing import Self

# How far a machine's clock may be from the store's. Two of them together stay below any retention.
_SKEWS = tuple(timedelta(seconds=seconds) for seconds in (-2 * 86400, -3600, -5, 0, 5, 3600, 2 * 86400))


class Clock:
    """The time of the store. A machine's own clock may differ from it."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 10, tzinfo=UTC)
        self.skew = timedelta()

    @property
    def of_store(self) -> datetime:
        """The time by which the store stamps its files."""
        return self._now

    @property
    def of_machine(self) -> datetime:
        """The time by which the processes stamp what they write."""
        return self._now + self.skew

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)

    def set_anew(self, draw: Random) -> None:
        """Set the machine's clock to another time, forward or back."""
        self.skew = draw.choice(_SKEWS)

    def as_datetime(self) -> type[datetime]:
        """Return a `datetime` whose `now` is this clock's."""
        clock = self

        class SimulatedDatetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                found = clock.of_machine.astimezone(tz)
                return cls.combine(found.date(), found.timetz())

        return SimulatedDatetime
