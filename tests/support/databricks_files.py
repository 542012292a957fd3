"""The files of the Databricks stand-in, on a volume and in the workspace, in the test's own process, which sees what is asked."""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchard_sandbox.databricks.task_compute import Workspace
from orchard_sandbox.databricks.volumes import Volumes
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.s3.landing import s3_environment
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from support.databricks_workspace import FullWorkspace
from support.databricks_workspace_files import WorkspaceFiles

TOKEN = "the-token"
VOLUME = "/Volumes/main/ml/jobs"
_FILES = "/api/2.0/fs/files"


@dataclass
class VolumeServer:
    """The volume and the workspace's files, and the paths that were written, in order.

    `failures` are answered first: (status, error code), one a request; None lets a request through.
    """

    volumes: Volumes
    workspace: WorkspaceFiles
    address: str = ""
    written: list[str] = field(default_factory=list)
    failures: list[tuple[int, str] | None] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """Return what the volume and the workspace hold, by path."""
        tops = {VOLUME: self.volumes.path(VOLUME), "/Workspace": self.workspace.folder}
        found = [(name, top, path) for name, top in tops.items() for path in top.rglob("*") if path.is_file()]
        return {f"{name}/{path.relative_to(top)}": path.read_bytes() for name, top, path in found}

    def uploads(self) -> list[str]:
        """Return the files that were written, in order, and forget them."""
        found, self.written = self.written, []
        return found


@contextmanager
def serve_volume(folder: Path) -> Iterator[VolumeServer]:
    """Serve an empty volume on loopback; the folder keeps it."""
    python, volumes = folder / "python", Volumes(folder / "volumes")
    volumes.make(VOLUME)
    volume = VolumeServer(volumes, WorkspaceFiles(folder / "workspace"))

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        failure = volume.failures.pop(0) if volume.failures and request.path.startswith("/api/") else None
        if failure is not None:
            status, code = failure
            told = json.dumps({"error_code": code, "message": "as the test wants"})
            return Response(told, status, mimetype="application/json")(environ, start_response)
        answer = service.answer(request)
        if (request.method, answer.status_code) == ("PUT", 204) and request.path.startswith(_FILES):
            volume.written.append(request.path.removeprefix(_FILES))
        if (request.path, answer.status_code) == ("/api/2.0/workspace/import", 200):
            volume.written.append(json.loads(request.get_data())["path"])
        return answer(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    volume.address = f"http://127.0.0.1:{server.server_port}"
    machine = Machine(python, python, s3_environment("http://127.0.0.1:9", "thing"))
    workspace = Workspace(folder, machine, folder / "objects", volume.address)
    service = FullWorkspace(workspace, TOKEN)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield volume
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
