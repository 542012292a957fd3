"""The records of a stand-in, each in its own file, with every state that it was in. It knows no API."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from orchard_sandbox.files import write_whole


@dataclass(kw_only=True)
class Record:
    """A run, an application or a cluster, which survives a restart of the stand-in.

    Its fields are kept but for those that `__init__` does not take.

    Attributes:
        folder: of its own, named by its id.
        states: every state that it was in, the present one last.
        lock: held while several fields change.
    """

    folder: Path
    states: list[str]
    lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    @property
    def id(self) -> str:
        """Its id."""
        return self.folder.name

    @property
    def state(self) -> str:
        """The present state."""
        return self.states[-1]

    def change(self, state: str) -> None:
        """Enter a state, and write the record."""
        with self.lock:
            if state != self.states[-1]:
                self.states.append(state)
            self.save()

    def save(self) -> None:
        """Write the record."""
        kept = {one.name: getattr(self, one.name) for one in fields(self) if one.init and one.name != "folder"}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "record.json", json.dumps(kept, default=lambda moment: {"$time": moment.isoformat()}))

    @classmethod
    def read_all(cls, folder: Path) -> Iterator[Self]:
        """Yield all records that lie in a folder, by their ids; that of another release may hold fields that are unknown here."""
        known = {one.name for one in fields(cls) if one.init}
        for path in sorted(folder.glob("*/record.json")):
            kept = json.loads(path.read_text(), object_hook=_read_time)
            yield cls(folder=path.parent, **{name: value for name, value in kept.items() if name in known})


def now() -> datetime:
    """Return the time in whole milliseconds, as APIs give it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _read_time(given: dict[str, Any]) -> Any:
    return datetime.fromisoformat(given["$time"]) if "$time" in given else given
