"""All of moto, for the services that the stack's AWS stand-in has not; run as a program with the file for its address.

A process of its own because delta-rs and moto in one process deadlock: delta-rs holds the GIL while it waits.
"""

import sys
import threading
from pathlib import Path

from moto.server import ThreadedMotoServer
from orchard_sandbox.files import write_whole

if __name__ == "__main__":
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    write_whole(Path(sys.argv[1]), f"http://{host}:{port}")
    threading.Event().wait()  # until it is ended
