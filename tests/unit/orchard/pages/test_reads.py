"""Reads run in two threads of their own; what takes too long, or would have to wait too long, is refused."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import HTTPException
from orchard.pages.reads import Reads


async def many(reads: Reads, *functions: Callable[[], Any]) -> list[Any]:
    return await asyncio.gather(*(reads.run(function) for function in functions), return_exceptions=True)


def test_a_read_runs_in_a_thread_of_the_pages() -> None:
    name = asyncio.run(Reads().run(lambda: threading.current_thread().name))
    assert name.startswith("orchard-pages")


def test_two_reads_run_at_once_and_the_others_wait() -> None:
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    def read() -> None:
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
        both.wait(30)
        with lock:
            running -= 1

    assert asyncio.run(many(Reads(), *[read] * 6)) == [None] * 6
    assert most == 2


def test_the_event_loop_goes_on_while_reads_wait() -> None:
    go_on = threading.Event()

    async def look() -> str:
        reading = asyncio.ensure_future(many(Reads(), *[lambda: go_on.wait(30)] * 3))
        await asyncio.sleep(0)  # the loop is free, or this would never return
        go_on.set()
        return "free" if await reading == [True] * 3 else "held up"

    assert asyncio.run(look()) == "free"


def refused(found: Any) -> HTTPException:
    assert isinstance(found, HTTPException)
    assert found.status_code == 503
    assert found.headers == {"Retry-After": "3"}
    return found


def test_one_read_too_many_is_refused_at_once() -> None:
    go_on = threading.Event()
    reads = Reads(most_waiting=3)

    async def crowd() -> Any:
        waiting = [asyncio.ensure_future(reads.run(lambda: go_on.wait(30))) for _ in range(3)]
        await asyncio.sleep(0)
        (last,) = await many(reads, lambda: "never run")
        go_on.set()
        await asyncio.gather(*waiting)
        return last, await reads.run(lambda: "there is room again")

    last, after = asyncio.run(crowd())
    assert "Too many reads are waiting" in refused(last).detail
    assert after == "there is room again"


def test_a_read_that_hangs_is_given_up_and_holds_its_place() -> None:
    go_on = threading.Event()
    reads = Reads(most_waiting=1, seconds=0.05)

    async def hang() -> list[Any]:
        return [*await many(reads, lambda: go_on.wait(30)), *await many(reads, lambda: "no room")]

    hung, crowded = asyncio.run(hang())
    go_on.set()
    assert "did not answer within 0.05 s" in refused(hung).detail
    assert "Too many" in refused(crowded).detail


def test_what_a_read_raises_is_handed_on() -> None:
    def fail() -> None:
        raise ValueError("of the read")

    with pytest.raises(ValueError, match="of the read"):
        asyncio.run(Reads().run(fail))
