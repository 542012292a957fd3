"""Serves a stand-in on loopback, on its former port if that is free, until SIGTERM or SIGINT.

Web pages are kept out: any page in the user's browser can send requests to a port of this machine.
"""

import argparse
import logging
import signal
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from orchard_sandbox.files import write_whole


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every stand-in has."""
    parser.add_argument("--folder", type=Path, required=True, help="keeps all that outlives the process")
    parser.add_argument("--address-file", type=Path, required=True, help="written once the server listens")
    parser.add_argument("--port", type=int, default=0, help="tried first")


def listen(port: int) -> socket.socket:
    """Return a listening socket, on another port if this one is taken."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=128)


def without_pages(application: WSGIApplication, port: int) -> WSGIApplication:
    """Return the WSGI application, closed to web pages.

    A browser adds `Origin` to what a page of another address may send, asks by `OPTIONS` for more, and names another host after
    DNS rebinding: all three get 403. No answer allows a page to read it (CORS).
    """
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [one for one in headers if not one[0].lower().startswith("access-control-")], *rest)

        if "HTTP_ORIGIN" in environ or environ["REQUEST_METHOD"] == "OPTIONS":
            return Response("No web page is served here.\n", 403)(environ, start_response)
        if environ.get("HTTP_HOST") not in hosts:
            return Response(f"Call this server as 127.0.0.1:{port}.\n", 403)(environ, start_response)
        return application(environ, start)

    return answer


def serve(
    listener: socket.socket,
    application: WSGIApplication,
    address: str,
    address_file: Path,
    handler: type[WSGIRequestHandler] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; the file gets the address, which shows that the server listens."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request would fill the disk
    port, descriptor = listener.getsockname()[1], listener.fileno()
    with listener:  # the server takes a copy of the descriptor
        closed = without_pages(application, port)
        server = make_server("127.0.0.1", port, closed, threaded=True, request_handler=handler, fd=descriptor)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the serving loop, which this very thread runs.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    write_whole(address_file, address)
    server.serve_forever()
