"""A bound on the CPU that a piece of work may take, for tests of what costs too much."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_seconds(most: float) -> Iterator[None]:
    """Fail where what is done within takes more CPU-seconds of this thread; other processes' work does not count."""
    before = time.thread_time()
    yield
    used = time.thread_time() - before
    assert used <= most, f"took {used:.2f} CPU-seconds, {most:g} are allowed"
