"""A stand-in of either vendor as tests steer it: faults, and the states that a record was in."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests


class FaultyServer:
    """A stand-in as tests steer it.

    Attributes:
        address: where it listens.
        folder: keeps its records.
    """

    address: str
    folder: Path

    def fault(self, kind: str, **given: Any) -> None:
        answer = requests.post(f"{self.address}/_orchard/faults", json={"kind": kind, **given}, timeout=10)
        assert answer.status_code == 200, answer.text

    def states(self, name: Any) -> list[str]:
        """Return every state that a record was in, in order."""
        (path,) = self.folder.rglob(f"{name}/record.json")
        found: list[str] = json.loads(path.read_text())["states"]
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
