"""Decode in a process of its own, which a file may kill: then the file is set aside, and its batch goes on.

One process serves the files of a worker, a driver or a service, one after the other. It is started again when it has died.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import WHOLE, Views
from orchard_jobs.errors import JobError
from orchard_jobs.images import decoder_process
from orchard_jobs.images.decode import Decoded, Rejected
from orchard_jobs.images.decode import decode as decode_here
from orchard_jobs.images.decoder_process import CPU_SECONDS

# A decoder that has used no CPU for so long hangs. One that works is ended by its limit on CPU.
HANG_SECONDS = 30.0
_STARTS = 3
# All that it gets of this process's environment: no credential is among it.
_KEPT = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def decode(content: bytes, pixel_limit: int, input_pixels: int, views: Views = WHOLE) -> Decoded | Rejected:
    """Decode one image as `images.decode.decode` does, or say that it took too much or killed its decoder.

    Where the platform forbids a process of its own, it is decoded in this one, without a guard.

    Raises:
        JobError: no decoder can be started.
    """
    try:
        return _decoder().decode(content, pixel_limit, input_pixels, views)
    except PermissionError as error:
        _warn_of_no_guard(str(error))
        return decode_here(content, pixel_limit, input_pixels, views)


def start() -> None:
    """Start this process's decoder, so that it is ready when the first image comes."""
    with suppress(PermissionError):
        _decoder().start()


@cache
def _warn_of_no_guard(why: str) -> None:
    sys.stderr.write(f"images are decoded without a guard, for no process can be started here: {why}\n")


@cache
def _decoder() -> "GuardedDecoder":
    return GuardedDecoder()


def _bound(connection: Connection, seconds: float) -> None:
    """Let nothing wait longer for the other side, which may be stopped before it reads, or within its answer."""
    whole = int(seconds)
    most = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    with socket.socket(fileno=os.dup(connection.fileno())) as twin:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            twin.setsockopt(socket.SOL_SOCKET, option, most)


class _DiedError(Exception):
    """The decoder ended, or was ended, at a file.

    Attributes:
        status: the exit status, negative for a signal; None for one that hung.
    """

    def __init__(self, status: int | None) -> None:
        self.status = status


class GuardedDecoder:
    """A decoder in a process of its own. Safe to use from many threads; they take turns.

    Args:
        command: what runs it, without the number of its connection.
        hang_seconds: how long it may use no CPU before it counts as hanging.
    """

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-P", "-m", decoder_process.__name__),
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._command, self._hang_seconds = command, hang_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_ready = False

    def decode(self, content: bytes, pixel_limit: int, input_pixels: int, views: Views = WHOLE) -> Decoded | Rejected:
        """Decode one image. What kills two fresh decoders, one after the other, is set aside: one may die of another's memory."""
        with self._lock:
            for is_last in (False, True):
                try:
                    return self._ask(content, pixel_limit, input_pixels, views)
                except _DiedError as error:
                    if error.status == -signal.SIGXCPU:
                        return Rejected(Reason.TOO_COSTLY, f"decoding takes more than {CPU_SECONDS} CPU-seconds")
                    if is_last:
                        return Rejected(Reason.KILLED_DECODER, self._told(error.status))
        raise AssertionError("a decoder was asked twice")

    def start(self) -> None:
        """Start the process unless it runs."""
        with self._lock:
            self._start()

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = Pipe()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _ONE_THREAD
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [*self._command, str(theirs.fileno())]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
        except PermissionError:
            ours.close()
            raise
        except OSError as error:
            ours.close()
            raise JobError(f"cannot start the decoder's process {self._command[0]!r}: {error}") from error
        self._connection, self._is_ready = ours, False
        _bound(ours, self._hang_seconds)

    def _ready(self) -> Connection:
        """Return the connection of a decoder that is ready; JobError when none gets so far."""
        for _ in range(_STARTS):
            self._start()
            assert self._connection is not None
            if self._is_ready:
                return self._connection
            with suppress(EOFError, OSError):
                self._wait(self._connection)
                decoder_process.read_ready(self._connection)
                self._is_ready = True
                return self._connection
            status = self._end()
        raise JobError(
            f"{_STARTS} decoders ended with status {status} before they were ready: the worker's memory may be too small, or its "
            "Python lacks a package; see its log"
        )

    def _ask(self, content: bytes, pixel_limit: int, input_pixels: int, views: Views) -> Decoded | Rejected:
        connection = self._ready()
        try:
            decoder_process.ask(connection, content, pixel_limit, input_pixels, views)
            self._wait(connection)
            return decoder_process.read_answer(connection, input_pixels, views)
        except BlockingIOError as error:
            self._end()
            raise _DiedError(None) from error
        except (EOFError, OSError) as error:
            raise _DiedError(self._end()) from error

    def _wait(self, connection: Connection) -> None:
        """Wait until the process says something; BlockingIOError where it uses no CPU meanwhile."""
        used = None
        while not connection.poll(self._hang_seconds):
            if used == (used := self._cpu_ticks()):
                raise BlockingIOError("the decoder uses no CPU")

    def _cpu_ticks(self) -> int:
        """Return the CPU time that the process has used; the same at any time where nobody tells."""
        assert self._process is not None
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0
        return int(fields[11]) + int(fields[12])

    def _end(self) -> int:
        """End the process; return its exit status, which is its own where it had ended by itself."""
        if self._process is None or self._connection is None:
            return 0
        self._connection.close()
        try:
            # One that died has closed its end a moment before its status is there.
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process = self._connection = None
        return status

    def _told(self, status: int | None) -> str:
        if status is None:
            return f"the decoder hung: it used no CPU for {self._hang_seconds:g} s"
        return f"the decoder died of {signal.Signals(-status).name}" if status < 0 else f"the decoder ended with status {status}"
