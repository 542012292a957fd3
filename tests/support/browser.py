"""A web page in a real Chromium."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# A name that the browser takes for this machine's loopback, as a name server of an attacker may tell it.
EVIL_NAME = "evil.test"


def find_chromium() -> str:
    """Return the browser's command; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium: on Debian `apt-get install chromium` brings it")
    return found


def shown(url: str, folder: Path) -> str:
    """Return a page's text after its scripts have run; the test is skipped where there is no Chromium."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", f"--user-data-dir={folder}"]
    options += [f"--host-resolver-rules=MAP {EVIL_NAME} 127.0.0.1", "--dump-dom", url]
    done = subprocess.run([find_chromium(), *options], capture_output=True, text=True, timeout=240, check=True)
    return unescape(done.stdout)


@contextmanager
def serving_page(content: str) -> Iterator[int]:
    """Serve one page at every path, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
