"""A place that holds a deployed package in memory, whatever URI and connection it is asked for by."""

from dataclasses import dataclass
from typing import ClassVar

from orchard.deployment.package import build_package


@dataclass(frozen=True)
class PackagePlace:
    """Stands for `destination_of`; tests replace what `files` holds."""

    uri: str
    connection: str | None
    files: ClassVar[dict[str, bytes]] = dict(build_package().files)

    def read(self, path: str) -> bytes | None:
        """Return a file, or None."""
        return self.files.get(path)
