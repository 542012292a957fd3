"""A decoder's process that some files end, each in its own way; a program of its own, whose argument is its connection.

A file that begins with one of these words does what the word says; all others are decoded.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import Views
from orchard_jobs.images import decoder_process
from orchard_jobs.images.decode import Decoded, Rejected, decode


def reserve() -> None:
    # Not written to: it costs no CPU-seconds, which are limited, too.
    taken = [np.empty(2**26, np.uint8)]
    while True:
        taken.append(np.empty(2**26, np.uint8))


def eat() -> None:
    eaten = [bytearray(2**26)]
    while True:
        eaten.append(bytearray(2**26))


def spin() -> None:
    while True:
        pass


ENDS: dict[bytes, Callable[[], object]] = {
    b"abort": os.abort,
    b"reserve": reserve,
    b"eat": eat,
    b"sleep": lambda: time.sleep(3600),
    b"spin": spin,
    b"killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"exit": lambda: sys.exit(3),
}


def abort_once(mark: Path) -> None:
    if not mark.exists():
        mark.touch()
        os.abort()


def decode_badly(content: bytes, pixel_limit: int, input_pixels: int, views: Views) -> Decoded | Rejected:
    word, _, rest = content.partition(b" ")
    if word in ENDS:
        ENDS[word]()
    if word == b"once":
        abort_once(Path(os.fsdecode(rest)))
    if word == b"environment":
        return Rejected(Reason.EMPTY, " ".join(sorted(os.environ)))
    if word == b"score":
        return Rejected(Reason.EMPTY, Path("/proc/self/oom_score_adj").read_text().strip())
    return decode(content, pixel_limit, input_pixels, views)


if __name__ == "__main__":
    decoder_process.CPU_SECONDS = 1
    decoder_process.serve(Connection(int(sys.argv[1])), decode_badly)
