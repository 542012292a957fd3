"""Iterate in a thread of its own, some items ahead of who takes them."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def ahead(items: Generator[T, None, None], most: int, add_wait: Callable[[float], None]) -> Generator[T, None, None]:
    """Yield the items in their order; what they raise is raised here.

    Args:
        items: iterated in a thread of its own, and closed there.
        most: how many items are held ready.
        add_wait: called with the seconds that each taking waited.
    """
    taken: queue.Queue[T | _End] = queue.Queue(most)
    is_stopped = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, taken, is_stopped), name="decode", daemon=True)
    thread.start()
    try:
        while True:
            started = time.perf_counter()
            item = taken.get()
            add_wait(time.perf_counter() - started)
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        is_stopped.set()
        # Joined, for the source may be Spark's own stream: nobody else may read it while this thread still does.
        while thread.is_alive():
            _drain(taken)
            thread.join(0.05)


def _produce(items: Generator[T, None, None], taken: "queue.Queue[T | _End]", is_stopped: threading.Event) -> None:
    error: BaseException | None = None
    try:
        with closing(items):
            for item in items:
                taken.put(item)
                if is_stopped.is_set():
                    break
    except BaseException as raised:
        error = raised
    finally:
        taken.put(_End(error))


def _drain(taken: "queue.Queue[T | _End]") -> None:
    while not taken.empty():
        taken.get_nowait()
