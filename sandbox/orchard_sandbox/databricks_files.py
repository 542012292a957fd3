"""What a Databricks run reads of the outside: Unity Catalog volumes, Python environments, and S3 as Spark sees it there.

It knows no request. Volumes are folders; a bucket's objects are laid out as plain files that Spark mounts at `s3://`.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bootstrap

from orchard_sandbox.layout import ROOT
from orchard_sandbox.objects_on_disk import ObjectFolder

PLATFORM = ("pyspark", "pandas", "numpy", "pyarrow", "grpcio", "grpcio-status", "googleapis-common-protos", "zstandard")


class MissingError(Exception):
    """A volume, a file or a package is not there; the message says which."""


@dataclass(frozen=True)
class Volumes:
    """Volumes below one folder: `/Volumes/<catalog>/<schema>/<volume>/...` is `<folder>/<catalog>/<schema>/<volume>/...`."""

    folder: Path

    def make(self, path: str) -> None:
        """Make an empty volume."""
        self._of(path).mkdir(parents=True, exist_ok=True)

    def path(self, path: str) -> Path:
        """Return where a file or folder of a volume lies; MissingError when there is no such volume."""
        parts = path.split("/")
        volume = self._of("/".join(parts[:5]))
        if len(parts) < 5 or ".." in parts or not volume.is_dir():
            raise MissingError(f"Volume of {path} does not exist.")
        return self._of(path)

    def _of(self, path: str) -> Path:
        return self.folder / path.removeprefix("/Volumes/")


@dataclass
class Environments:
    """Python environments, one for each set of a wheel's bytes and its dependencies; each is made once.

    Attributes:
        folder: keeps them.
        python: the Python that they stand on.
    """

    folder: Path
    python: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, wheels: Sequence[Path], packages: Sequence[str]) -> Path:
        """Return the Python of the environment with these; MissingError, with uv's words, when they cannot be installed."""
        told = json.dumps([[hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels], sorted(packages), self._pins()])
        environment = self.folder / hashlib.sha256(told.encode()).hexdigest()[:16]
        with self._lock:
            if not (environment / "finished").exists():
                shutil.rmtree(environment, ignore_errors=True)
                self._make(environment, wheels, packages)
                (environment / "finished").touch()
        return environment / "bin" / "python"

    def _make(self, environment: Path, wheels: Sequence[Path], packages: Sequence[str]) -> None:
        uv = bootstrap.find_uv(sys.executable)
        settings = bootstrap.uv_settings(sys.executable)
        _check(bootstrap.run([uv, "venv", "--quiet", "--python", str(self.python), str(environment)], settings))
        pins = environment / "pins.txt"
        pins.write_text(self._pins())
        install = [uv, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), "-c", str(pins)]
        # Apart, so that a package which the cache lacks does not have PySpark looked up at the index, too.
        for asked in (PLATFORM, [*packages, *map(str, wheels)]):
            if asked:
                _check(bootstrap.run_uv([*install, *asked], settings))

    @staticmethod
    def _pins() -> str:
        return "".join((ROOT / "requirements" / name).read_text() for name in ("jobs.txt", "dev.txt"))


def _check(finished: subprocess.CompletedProcess[str]) -> None:
    if finished.returncode:
        raise MissingError(f"Library installation failed: {finished.stdout.strip()[-2000:]}")


@dataclass
class Mounts:
    """Buckets as plain files, for Spark's readers: `s3://<bucket>/<key>` without a connector.

    Attributes:
        folder: the plain files.
        objects: the S3 stand-in's objects.
    """

    folder: Path
    objects: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def conf(self) -> dict[str, str]:
        """Bring the files up to date, and return Spark's settings that mount them."""
        found = {
            "fs.s3.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
            "fs.viewfs.overload.scheme.target.s3.impl": "org.apache.hadoop.fs.LocalFileSystem",
        }
        with self._lock:
            for bucket in ObjectFolder(self.objects).buckets():
                for top in self._lay_out(bucket):
                    found[f"fs.viewfs.mounttable.{bucket}.link./{top.name}"] = f"file://{top}"
        return {f"spark.hadoop.{name}": value for name, value in found.items()}

    def _lay_out(self, bucket: str) -> list[Path]:
        root = self.folder / bucket
        root.mkdir(parents=True, exist_ok=True)
        wanted: dict[Path, int] = {}
        for key, source in _objects(self.objects / bucket):
            target = _plain_path(root, key)
            if target is None:
                continue
            moment = source.stat().st_mtime_ns
            wanted[target] = moment
            if not target.exists() or target.stat().st_mtime_ns != moment:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes().partition(b"\n")[2])
                os.utime(target, ns=(moment, moment))
        for path in root.rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()
        return sorted(path for path in root.iterdir() if path.is_dir())


def _objects(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.glob("??/*"):
        if path.suffix != ".part":
            with path.open("rb") as file:
                yield json.loads(file.readline())["key"], path


def _plain_path(root: Path, key: str) -> Path | None:
    """Return the file of a key, or None where a file system, and Spark with it, knows no such name."""
    elements = key.split("/")
    is_plain = all(element not in ("", ".", "..") and len(element.encode()) < 255 for element in elements)
    return root.joinpath(*elements) if is_plain and not re.search(r"[\x00-\x1f\x7f:]", key) else None
