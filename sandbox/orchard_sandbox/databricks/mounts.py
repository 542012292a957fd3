"""S3 as Spark sees it on Databricks: a bucket's objects laid out as plain files, which Spark mounts at `s3://`."""

import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from orchard_jobs.contract.locations import file_uri

from orchard_sandbox.s3.objects import ObjectFolder


@dataclass
class Mounts:
    """The S3 stand-in's objects as plain files in a folder, for Spark's readers: `s3://<bucket>/<key>` without a connector."""

    folder: Path
    objects: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def conf(self) -> dict[str, str]:
        """Update the files, and return the Spark settings that mount them."""
        found = {
            "fs.s3.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
            "fs.viewfs.overload.scheme.target.s3.impl": "org.apache.hadoop.fs.LocalFileSystem",
        }
        with self._lock:
            for bucket in ObjectFolder(self.objects).buckets():
                for top in self._lay_out(bucket):
                    found[f"fs.viewfs.mounttable.{bucket}.link./{top.name}"] = file_uri(str(top))
        return {f"spark.hadoop.{name}": value for name, value in found.items()}

    def _lay_out(self, bucket: str) -> list[Path]:
        root, objects = self.folder / bucket, ObjectFolder(self.objects)
        root.mkdir(parents=True, exist_ok=True)
        wanted: set[Path] = set()
        for source in objects.files(bucket):
            target = _plain_path(root, objects.version_key(source))
            if target is None:
                continue
            wanted.add(target)
            moment = source.stat().st_mtime_ns
            if not target.exists() or target.stat().st_mtime_ns != moment:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(objects.read(source)[1])
                os.utime(target, ns=(moment, moment))
        for path in root.rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()
        return sorted(path for path in root.iterdir() if path.is_dir())


def _plain_path(root: Path, key: str) -> Path | None:
    """Return the file of a key, or None for a key that is not a valid file name."""
    elements = key.split("/")
    is_plain = all(element not in ("", ".", "..") and len(element.encode()) < 255 for element in elements)
    return root.joinpath(*elements) if is_plain and not re.search(r"[\x00-\x1f\x7f:]", key) else None
