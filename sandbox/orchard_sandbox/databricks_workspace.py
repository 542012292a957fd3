"""Workspace files of the Databricks stand-in: folders and plain files below `/Workspace`; notebooks are refused.

Its answers are those of `/api/2.0/workspace/`.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Request

from orchard_sandbox.databricks_requests import ApiError, given_of, invalid, is_true

PREFIX = "/api/2.0/workspace/"
_TOP = "/Workspace"
# Of one import or export.
_MOST_BYTES = 10 * 1024 * 1024
_NOTEBOOK = b"# Databricks notebook source"


@dataclass(frozen=True)
class WorkspaceFiles:
    """The files: `/Workspace/...`, which the API also takes without that first element, lie below one folder."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("Shared", "Users"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def path(self, path: str) -> Path:
        """Return where an object lies, be it there or not; ApiError for what is no path."""
        if not path.startswith("/") or ".." in path.split("/"):
            raise invalid(f"Path ({path}) doesn't start with '/', or leads out of the workspace")
        return self.folder / f"{path}/".removeprefix(f"{_TOP}/").strip("/")

    def answer(self, request: Request) -> dict[str, Any] | bytes:
        """Answer a request; what it does not know it refuses by ApiError."""
        if "content" in request.files:  # an upload comes as a form
            with request.files["content"].stream as content:
                given = {**request.form.to_dict(), "content": content.read()}
        else:
            given = given_of(request)
        calls: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any] | bytes]] = {
            ("POST", "mkdirs"): self._make,
            ("POST", "import"): self._import,
            ("POST", "delete"): self._delete,
            ("GET", "get-status"): lambda given: self._told(self._there(given)),
            ("GET", "list"): self._list,
            ("GET", "export"): self._export,
        }
        name = request.path.removeprefix(PREFIX)
        if (request.method, name) not in calls:
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        return calls[request.method, name](given)

    def _make(self, given: dict[str, Any]) -> dict[str, Any]:
        path = self._named(given)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"{given['path']}: a file is in the way") from error
        return {}

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        path = self._there(given)
        return {"objects": [self._told(one) for one in (sorted(path.iterdir()) if path.is_dir() else [path])]}

    def _import(self, given: dict[str, Any]) -> dict[str, Any]:
        path, content = self._named(given), given.get("content", b"")
        if isinstance(content, str):
            try:
                content = base64.b64decode(content, validate=True)
            except binascii.Error as error:
                raise invalid(f"The content is no base64: {error}") from error
        if given.get("format") not in ("AUTO", "RAW") or content.startswith(_NOTEBOOK):
            raise invalid("this stand-in imports plain files alone: by the format RAW, or AUTO, and no notebook")
        if len(content) > _MOST_BYTES:
            raise ApiError(400, "MAX_NOTEBOOK_SIZE_EXCEEDED", f"{len(content)} bytes; the limit is {_MOST_BYTES}")
        if not path.parent.is_dir():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"The parent folder of {given['path']} does not exist.")
        if path.is_dir() or (path.exists() and not is_true(given, "overwrite")):
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Path ({given['path']}) already exists.")
        fresh = self.folder / f".{secrets.token_hex(8)}"
        fresh.write_bytes(content)
        fresh.replace(path)
        return {}

    def _delete(self, given: dict[str, Any]) -> dict[str, Any]:
        path = self._there(given)
        if not path.is_dir():
            path.unlink()
        elif any(path.iterdir()):
            raise ApiError(400, "DIRECTORY_NOT_EMPTY", f"Folder ({given['path']}) is not empty; this stand-in empties none")
        else:
            path.rmdir()
        return {}

    def _export(self, given: dict[str, Any]) -> dict[str, Any] | bytes:
        path = self._there(given)
        if path.is_dir() or given.get("format") not in ("AUTO", "RAW"):
            raise invalid("this stand-in exports plain files alone, by the format RAW, or AUTO")
        content = path.read_bytes()
        if is_true(given, "direct_download"):
            return content
        return {"content": base64.b64encode(content).decode(), "file_type": path.suffix.removeprefix(".")}

    def _named(self, given: dict[str, Any]) -> Path:
        return self.path(str(given.get("path", "")))

    def _there(self, given: dict[str, Any]) -> Path:
        path = self._named(given)
        if not path.exists():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Path ({given['path']}) doesn't exist.")
        return path

    def _told(self, path: Path) -> dict[str, Any]:
        name = f"{_TOP}/{path.relative_to(self.folder)}"
        number = int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)
        told: dict[str, Any] = {"object_type": "DIRECTORY", "path": name, "object_id": number, "resource_id": str(number)}
        if path.is_dir():
            return told
        found = path.stat()
        moment = int(found.st_mtime * 1000)
        return told | {"object_type": "FILE", "size": found.st_size, "created_at": moment, "modified_at": moment}
