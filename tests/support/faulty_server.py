"""What the stand-ins of both vendors answer to tests alone: faults, and the states that a record was in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests


class FaultyServer:
    """A stand-in as tests steer it.

    Attributes:
        address: where it listens.
    """

    address: str

    def fault(self, kind: str, **given: Any) -> None:
        answer = requests.post(f"{self.address}/_orchard/faults", json={"kind": kind, **given}, timeout=10)
        assert answer.status_code == 200, answer.text

    def states(self, name: Any) -> list[str]:
        """Return every state that a record was in, in order."""
        found: list[str] = requests.get(f"{self.address}/_orchard/states/{name}", timeout=30).json()
        return found

    @contextmanager
    def holding_jobs(self) -> Iterator[None]:
        """Let no job start before the end of the block."""
        self.fault("hold", times=0)
        try:
            yield
        finally:
            self.no_faults()

    def no_faults(self) -> None:
        assert requests.delete(f"{self.address}/_orchard/faults", timeout=10).ok
