"""Unity Catalog's volumes, which are folders, and the Files API `/api/2.0/fs/` in front of them."""

from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path, PurePosixPath

from orchard_jobs.contract.locations import below, volume_of
from werkzeug.wrappers import Request, Response

from orchard_sandbox.databricks.requests import ApiError
from orchard_sandbox.files import write_whole
from orchard_sandbox.job_execution.job import MissingError

FILES_API = "/api/2.0/fs/"


@dataclass(frozen=True)
class Volumes:
    """Volumes below one folder: `/Volumes/<catalog>/<schema>/<volume>/...` is `<folder>/<catalog>/<schema>/<volume>/...`."""

    folder: Path

    def make(self, path: str) -> None:
        """Make an empty volume."""
        self._of(path).mkdir(parents=True, exist_ok=True)

    def path(self, path: str) -> Path:
        """Return the path of a file or folder on a volume; raise MissingError when there is no such volume."""
        volume = volume_of(path)
        if volume is None or ".." in PurePosixPath(path).parts or not self._of(volume).is_dir():
            raise MissingError(f"Volume of {path} does not exist.")
        return self._of(path)

    def _of(self, path: str) -> Path:
        return self.folder / PurePosixPath(path).relative_to("/Volumes")

    def answer(self, request: Request) -> Response:
        """Answer a request of the Files API."""
        kind, _, rest = request.path.removeprefix(FILES_API).partition("/")
        try:
            path = self.path(below("/", rest))
        except MissingError as error:
            raise ApiError(404, "NOT_FOUND", str(error)) from error
        if (kind, request.method) == ("directories", "PUT"):
            path.mkdir(parents=True, exist_ok=True)
            return Response(status=204)
        if kind != "files" or request.method not in ("GET", "HEAD", "PUT"):
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        if request.method == "PUT":
            return _upload(request, path)
        if not path.is_file():
            raise ApiError(404, "NOT_FOUND", f"/{rest} does not exist.")
        modified = formatdate(path.stat().st_mtime, usegmt=True)
        return Response(path.read_bytes(), mimetype="application/octet-stream", headers={"Last-Modified": modified})


def _upload(request: Request, path: Path) -> Response:
    if not path.parent.is_dir():
        raise ApiError(404, "NOT_FOUND", f"The folder of {request.path} does not exist.")
    if path.exists() and request.args.get("overwrite") != "true":
        raise ApiError(409, "ALREADY_EXISTS", f"{request.path} is there.")
    write_whole(path, request.get_data())
    return Response(status=204)
