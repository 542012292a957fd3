"""Serves a stand-in on loopback, on its former port if that is free, until SIGTERM or SIGINT."""

import argparse
import logging
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from orchard_sandbox.files import write_whole
from orchard_sandbox.job_execution.life_cycle import Pace


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every stand-in has."""
    parser.add_argument("--folder", type=Path, required=True, help="keeps all that outlives the process")
    parser.add_argument("--address-file", type=Path, required=True, help="written once the server listens")
    parser.add_argument("--port", type=int, default=0, help="tried first")
    parser.add_argument("--state-seconds", type=float, default=Pace.state_seconds, help="how long a state on the way lasts")
    parser.add_argument("--minute-seconds", type=float, default=Pace.minute_seconds, help="how long a minute of a limit lasts")


def listen(port: int) -> socket.socket:
    """Return a listening socket, on another port if this one is taken."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=128)


def serve(
    listener: socket.socket,
    application: Any,
    address: str,
    address_file: Path,
    handler: type[WSGIRequestHandler] | None = None,
    certificate: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; the file gets the address, which tells whoever waits that the server listens."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request would fill the disk
    tls = (str(certificate), str(certificate)) if certificate else None
    port, descriptor = listener.getsockname()[1], listener.fileno()
    with listener:  # the server takes a copy of the descriptor
        server = make_server(
            "127.0.0.1", port, application, threaded=True, request_handler=handler, fd=descriptor, ssl_context=tls
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the serving loop, which this very thread runs.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    write_whole(address_file, address)
    server.serve_forever()
