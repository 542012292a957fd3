"""A cgroup with a limit on memory, on machines that let a test make one (Linux, as root)."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class LimitedMemory:
    """A cgroup.

    Attributes:
        folder: its files.
    """

    folder: Path

    def command(self, command: list[str]) -> list[str]:
        """Return the command that runs another inside, with all that it starts."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    @property
    def peak_bytes(self) -> int:
        """The most memory that was ever used inside."""
        name = "memory.peak" if (self.folder / "memory.max").exists() else "memory.max_usage_in_bytes"
        return int((self.folder / name).read_text())


@contextmanager
def limited_memory(limit_bytes: int) -> Iterator[LimitedMemory]:
    """Give a cgroup with a limit; skip the test where none can be made."""
    found = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    parent = _ROOT / "memory" / found["memory"].strip("/") if "memory" in found else _ROOT / found.get("", "").strip("/")
    folder = parent / f"orchard-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        limits = [name for name in ("memory.max", "memory.limit_in_bytes") if (folder / name).exists()]
        if not limits:
            pytest.skip(f"{folder} has no limit on memory")
        (folder / limits[0]).write_text(str(limit_bytes))
        yield LimitedMemory(folder)
    finally:
        deadline = time.monotonic() + 60
        while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:  # a decoder outlives its user by a moment
            time.sleep(0.05)
        folder.rmdir()
