"""Workspace files of the Databricks stand-in: folders and plain files below `/Workspace`; notebooks are refused.

Its calls are those of `/api/2.0/workspace/`.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchard_sandbox.databricks.requests import ApiError, invalid
from orchard_sandbox.files import write_whole

WORKSPACE_API = "/api/2.0/workspace/"
_TOP = "/Workspace"
# Of one import or export.
_MOST_BYTES = 10 * 1024 * 1024
_NOTEBOOK = b"# Databricks notebook source"
Given = dict[str, Any]


@dataclass(frozen=True)
class WorkspaceFiles:
    """The files: `/Workspace/...`, which the API also takes without that first element, lie below one folder."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("Shared", "Users"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def calls(self) -> dict[tuple[str, str], Callable[[Given], Given | bytes]]:
        """Return the API's calls by method and path."""
        return {
            ("POST", f"{WORKSPACE_API}mkdirs"): self._make,
            ("POST", f"{WORKSPACE_API}import"): self._import,
            ("POST", f"{WORKSPACE_API}delete"): self._delete,
            ("GET", f"{WORKSPACE_API}get-status"): lambda given: self._told(self._there(given)),
            ("GET", f"{WORKSPACE_API}list"): self._list,
            ("GET", f"{WORKSPACE_API}export"): self._export,
        }

    def path(self, path: str) -> Path:
        """Return the path of an object, whether it exists or not; raise ApiError for an invalid path."""
        given = PurePosixPath(path)
        if not given.is_absolute() or ".." in given.parts:
            raise invalid(f"Path ({path}) doesn't start with '/', or leads out of the workspace")
        return self.folder.joinpath(*given.parts[2 if given.is_relative_to(_TOP) else 1 :])

    def _make(self, given: Given) -> Given:
        path = self._named(given)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"{given['path']}: a file is in the way") from error
        return {}

    def _list(self, given: Given) -> Given:
        path = self._there(given)
        return {"objects": [self._told(one) for one in (sorted(path.iterdir()) if path.is_dir() else [path])]}

    def _import(self, given: Given) -> Given:
        path, content = self._named(given), given.get("content", b"")
        if isinstance(content, str):
            try:
                content = base64.b64decode(content, validate=True)
            except binascii.Error as error:
                raise invalid(f"The content is not base64: {error}") from error
        if given.get("format") not in ("AUTO", "RAW") or content.startswith(_NOTEBOOK):
            raise invalid("this stand-in imports plain files alone: by the format RAW, or AUTO, and no notebook")
        if len(content) > _MOST_BYTES:
            raise ApiError(400, "MAX_NOTEBOOK_SIZE_EXCEEDED", f"{len(content)} bytes; the limit is {_MOST_BYTES}")
        if not path.parent.is_dir():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"The parent folder of {given['path']} does not exist.")
        if path.is_dir() or (path.exists() and not is_true(given, "overwrite")):
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Path ({given['path']}) already exists.")
        write_whole(path, content)
        return {}

    def _delete(self, given: Given) -> Given:
        path = self._there(given)
        if not path.is_dir():
            path.unlink()
        elif any(path.iterdir()):
            raise ApiError(400, "DIRECTORY_NOT_EMPTY", f"Folder ({given['path']}) is not empty; this stand-in empties none")
        else:
            path.rmdir()
        return {}

    def _export(self, given: Given) -> Given | bytes:
        path = self._there(given)
        if path.is_dir() or given.get("format") not in ("AUTO", "RAW"):
            raise invalid("this stand-in exports plain files alone, by the format RAW, or AUTO")
        content = path.read_bytes()
        if is_true(given, "direct_download"):
            return content
        return {"content": base64.b64encode(content).decode(), "file_type": path.suffix.removeprefix(".")}

    def _named(self, given: Given) -> Path:
        return self.path(str(given.get("path", "")))

    def _there(self, given: Given) -> Path:
        path = self._named(given)
        if not path.exists():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Path ({given['path']}) doesn't exist.")
        return path

    def _told(self, path: Path) -> Given:
        name = f"{_TOP}/{path.relative_to(self.folder)}"
        number = int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)
        told: Given = {"object_type": "DIRECTORY", "path": name, "object_id": number, "resource_id": str(number)}
        if path.is_dir():
            return told
        found = path.stat()
        moment = int(found.st_mtime * 1000)
        return told | {"object_type": "FILE", "size": found.st_size, "created_at": moment, "modified_at": moment}


def is_true(given: Given, name: str) -> bool:
    """Return a flag of a query, where it is text, or of a body."""
    return str(given.get(name, "false")).lower() == "true"
