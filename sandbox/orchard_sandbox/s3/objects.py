"""Objects of the S3 stand-in as files: one file an object, its head and its bytes together, so that one rename stores both.

It knows nothing of moto or HTTP.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from orchard_sandbox.files import write_whole


@dataclass(frozen=True)
class StoredObject:
    """What is stored of an object besides its bytes.

    Attributes:
        key: the raw key, any text that S3 allows.
        etag: without quotes.
        last_modified: ISO 8601, UTC without an offset, with microseconds.
        metadata: the headers kept with the object.
    """

    key: str
    etag: str
    last_modified: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class ObjectFolder:
    """The objects of all buckets under one folder: `<folder>/<bucket>/<2 hex digits>/<SHA-256 of the key>`.

    Keys reach 1,024 bytes, hold `/`, `..` and control characters: as file names they would not survive.
    """

    folder: Path

    def add_bucket(self, bucket: str) -> None:
        """Store an empty bucket."""
        (self.folder / bucket).mkdir(parents=True, exist_ok=True)

    def buckets(self) -> list[str]:
        """Return the names of all buckets."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.exists() else []

    def write(self, bucket: str, stored: StoredObject, content: bytes) -> None:
        """Put an object into its file; readers and a killed process see the old one or the new one."""
        path = self._path(bucket, stored.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(stored)).encode() + b"\n" + content)

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object's file; it may be gone already."""
        self._path(bucket, key).unlink(missing_ok=True)

    def files(self, bucket: str) -> Iterator[Path]:
        """Yield the file of every object of a bucket, and none that is half-written."""
        yield from sorted(path for path in (self.folder / bucket).glob("??/*") if path.suffix != ".part")

    @staticmethod
    def version_key(path: Path) -> str:
        """Return the key of the object of a file."""
        with path.open("rb") as file:
            return str(json.loads(file.readline())["key"])

    @staticmethod
    def read(path: Path) -> tuple[StoredObject, bytes]:
        """Return an object of its file."""
        head, _, content = path.read_bytes().partition(b"\n")
        return StoredObject(**json.loads(head)), content

    def remove_half_written(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.folder.glob("*/??/*.part"):
            path.unlink(missing_ok=True)

    def _path(self, bucket: str, key: str) -> Path:
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / bucket / digest[:2] / digest
