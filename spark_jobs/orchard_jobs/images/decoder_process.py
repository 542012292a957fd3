"""The process that decodes: takes files, answers with pixels or a reason, and may die of a file while nothing else does.

Its limits on memory and CPU hold for one file. It knows no storage, no network and no secret.
"""

import json
import math
import resource
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import Views, parse_views, text_of
from orchard_jobs.images.decode import Decoded, Rejected, decode

Decode = Callable[[bytes, int, int, Views], Decoded | Rejected]
# What a file's decoding may take. A picture at the pixel limit is a few copies of four bytes a pixel on its way to the square.
CPU_SECONDS = 20
BYTES_PER_PIXEL, LEAST_BYTES = 24, 512 * 1024 * 1024
_REQUEST = struct.Struct("!qq")
_SIZE = struct.Struct("!qq")
_READY, _DECODED, _REJECTED = b"r", b"d", b"x"


def serve(connection: Connection, decode: Decode = decode) -> None:
    """Answer each request with what decoding gives, one after the other, until the other side is gone."""
    _die_first()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own_bytes = _address_space()
    connection.send_bytes(_READY)
    with suppress(EOFError, BrokenPipeError):
        while True:
            request = connection.recv_bytes()
            pixel_limit, input_pixels = _REQUEST.unpack_from(request)
            views = parse_views(request[_REQUEST.size :].decode())
            content = connection.recv_bytes()
            _limit(own_bytes + len(content) + memory_bound(pixel_limit))
            _answer(connection, _decoded(decode, content, pixel_limit, input_pixels, views))


def memory_bound(pixel_limit: int) -> int:
    """Return the bytes that the decoding of one file may take, the file itself apart."""
    return max(LEAST_BYTES, BYTES_PER_PIXEL * pixel_limit)


def ask(connection: Connection, content: bytes, pixel_limit: int, input_pixels: int, views: Views) -> None:
    """Send a request; what `serve` has sent for it is read by `read_answer`."""
    connection.send_bytes(_REQUEST.pack(pixel_limit, input_pixels) + text_of(views).encode())
    connection.send_bytes(content)


def read_ready(connection: Connection) -> None:
    """Read what `serve` sends first; EOFError when it never got so far."""
    if connection.recv_bytes() != _READY:
        raise EOFError


def read_answer(connection: Connection, input_pixels: int, views: Views) -> Decoded | Rejected:
    """Read an answer; EOFError when the process has ended, or wrote none that can be read."""
    answer = connection.recv_bytes()
    try:
        if answer[:1] == _REJECTED:
            reason, message = json.loads(answer[1:])
            return Rejected(Reason(reason), str(message))
        width, height = _SIZE.unpack(answer[1:])
        pixels = np.frombuffer(connection.recv_bytes(), np.uint8)
        squares = pixels.reshape(len(views), input_pixels, input_pixels, 3)
    except (ValueError, struct.error) as error:
        raise EOFError from error
    return Decoded(squares, width, height)


def _answer(connection: Connection, found: Decoded | Rejected) -> None:
    # Not pickled: whoever takes over this process by a file's bytes must not get into the other.
    if isinstance(found, Rejected):
        connection.send_bytes(_REJECTED + json.dumps([found.reason.value, found.message]).encode())
        return
    connection.send_bytes(_DECODED + _SIZE.pack(found.width, found.height))
    connection.send_bytes(np.ascontiguousarray(found.squares).data.cast("B"))


def _decoded(decode: Decode, content: bytes, pixel_limit: int, input_pixels: int, views: Views) -> Decoded | Rejected:
    try:
        return decode(content, pixel_limit, input_pixels, views)
    except MemoryError:
        return Rejected(Reason.TOO_COSTLY, f"decoding takes more than {memory_bound(pixel_limit)} bytes of memory")


def _die_first() -> None:
    """Let the kernel end this process before any other when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(memory_bytes: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + CPU_SECONDS
    for kind, soft in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory_bytes)):
        hard = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):  # macOS knows no limit on the address space
            resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Return the bytes of address space that this process has before any file; 0 where nobody tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
