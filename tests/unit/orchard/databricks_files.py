"""A Unity Catalog volume behind the Files API, at its HTTP boundary: what databricks-sdk sends is what is answered.

Files and folders under /api/2.0/fs, a log-in by token or by a service principal's id and secret, errors as {"error_code",
"message"}. Large files, which the SDK sends in parts to the cloud's own store, are refused.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "the-token"
PRINCIPAL, SECRET = "the-principal", "the-secret"
VOLUME = "/Volumes/main/ml/jobs"
_FILES, _FOLDERS, _TOKENS = "/api/2.0/fs/files", "/api/2.0/fs/directories", "/oidc/v1/token"


@dataclass
class VolumeServer:
    """What the volume holds, and what was asked: (method, path) in order.

    `failures` are answered first: (status, error code), one a request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {VOLUME})
    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    address: str = ""

    def uploads(self) -> list[str]:
        """Return the paths that were written, in order, and forget all requests."""
        found = [path for method, path in self.requests if method == "PUT" and path in self.files]
        self.requests.clear()
        return found


class ApiHandler(BaseHTTPRequestHandler):
    """How the API reads and answers."""

    def body(self) -> bytes:
        """Read what was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def fail(self, status: int, code: str, message: str) -> None:
        """Answer with an error as Databricks words it."""
        self.send_json(status, {"error_code": code, "message": message})

    def send_json(self, status: int, found: dict[str, object]) -> None:
        """Answer in JSON."""
        self.send(status, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Handler(ApiHandler):
    @property
    def volume(self) -> VolumeServer:
        assert isinstance(self.server, _Server)
        return self.server.volume

    def do_HEAD(self) -> None:
        self._answer_of_file()

    def do_GET(self) -> None:
        found = {
            "/.well-known/databricks-config": {"oidc_endpoint": f"{self.volume.address}/oidc", "workspace_id": "1"},
            "/oidc/.well-known/oauth-authorization-server": {
                "authorization_endpoint": f"{self.volume.address}/oidc/v1/authorize",
                "token_endpoint": f"{self.volume.address}{_TOKENS}",
            },
        }.get(self.path)
        if found is None:
            self._answer_of_file()
        else:
            self.send_json(200, found)

    def do_PUT(self) -> None:
        content = self.body()
        path = self._told()
        if path is None:
            return
        if urlsplit(self.path).path.startswith(_FOLDERS):
            self.volume.folders.add(path)
            self.send(204)
        elif path.rpartition("/")[0] not in self.volume.folders:
            self.fail(404, "NOT_FOUND", f"the folder of {path} does not exist")
        elif path in self.volume.files and parse_qs(urlsplit(self.path).query).get("overwrite") != ["true"]:
            self.fail(409, "ALREADY_EXISTS", f"{path} is there")
        else:
            self.volume.files[path] = content
            self.send(204)

    def do_POST(self) -> None:
        self.body()
        if self.path == _TOKENS:
            known = base64.b64encode(f"{PRINCIPAL}:{SECRET}".encode()).decode()
            is_known = self.headers.get("Authorization") == f"Basic {known}"
            granted = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
            self.send_json(*((200, granted) if is_known else (401, {"error": "invalid_client"})))
            return
        self.fail(404, "ENDPOINT_NOT_FOUND", f"{self.path} is not known here")

    def _answer_of_file(self) -> None:
        path = self._told()
        if path is None:
            return
        if path not in self.volume.files:
            self.fail(404, "NOT_FOUND", f"{path} does not exist")
            return
        headers = {"Content-Type": "application/octet-stream", "Last-Modified": formatdate(1, usegmt=True)}
        self.send(200, self.volume.files[path], headers)

    def _told(self) -> str | None:
        """Note the request; return its path below the API, or answer it with an error and return None."""
        full = unquote(urlsplit(self.path).path)
        path = full.removeprefix(_FILES).removeprefix(_FOLDERS)
        self.volume.requests.append((self.command, path))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.fail(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")
        elif self.volume.failures:
            self.fail(*self.volume.failures.pop(0), "as the test wants")
        elif not full.startswith((_FILES, _FOLDERS)):
            self.fail(404, "ENDPOINT_NOT_FOUND", f"{full} is not known here")
        elif not f"{path}/".startswith(f"{VOLUME}/"):
            self.fail(404, "NOT_FOUND", f"Volume of {path} does not exist.")
        else:
            return path
        return None


class _Server(ThreadingHTTPServer):
    def __init__(self, volume: VolumeServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.volume = volume


@contextmanager
def serve_volume() -> Iterator[VolumeServer]:
    """Serve an empty volume on loopback."""
    volume = VolumeServer()
    with serve(_Server(volume)) as volume.address:
        yield volume


@contextmanager
def serve(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve on loopback; yield the address."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
