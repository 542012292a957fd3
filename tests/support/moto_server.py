"""All of moto, for the services that the stack's AWS stand-in has not; run as a program with the file for its address.

A process of its own because delta-rs and moto in one process deadlock: delta-rs holds the GIL while it waits.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moto.server import ThreadedMotoServer
from orchard_sandbox.files import write_whole


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """Run one for the block, and give its address, which it writes into a folder."""
    # Not needed by the program itself.
    from support.emr_stand_in import wait_until
    from support.steered_stand_in import steered_environment

    address = folder / "address"
    process = subprocess.Popen([sys.executable, "-m", "support.moto_server", str(address)], env=steered_environment())
    wait_until(lambda: address.exists() or process.poll() is not None)
    try:
        yield address.read_text()
    finally:
        process.terminate()
        process.wait(120)


if __name__ == "__main__":
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    write_whole(Path(sys.argv[1]), f"http://{host}:{port}")
    threading.Event().wait()  # until it is ended
