"""Where the pages' reads run: in two threads of their own, so that a slow store holds up nothing else of the api-server."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import HTTPException, status

T = TypeVar("T")
_THREADS = 2


class Reads:
    """Runs functions that read, two at a time.

    Args:
        most_waiting: reads that may run or wait; one more is refused.
        seconds: how long one read may take, its waiting included; it is then given up, but holds its place until it ends.
    """

    def __init__(self, most_waiting: int = 64, seconds: float = 10.0) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="orchard-pages")
        self._places = threading.BoundedSemaphore(most_waiting)
        self._seconds = seconds

    async def run(self, read: Callable[[], T]) -> T:
        """Return what a function returns; HTTPException 503 when it would have to wait too long, or takes too long."""
        if not self._places.acquire(blocking=False):
            raise _busy("Too many reads are waiting")
        future = self._executor.submit(read)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            raise _busy(f"The warehouse did not answer within {self._seconds:g} s") from None


def _busy(why: str) -> HTTPException:
    return HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, f"{why}. Try again in a few seconds.", {"Retry-After": "3"})
