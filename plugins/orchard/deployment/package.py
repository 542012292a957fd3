"""The jobs' package: the files that a cluster needs to run them, named by their content. Knows no target and no store.

Built from the `orchard-jobs` that is installed with this code, a wheel or a source tree alike, so what is deployed is what
planned the work. Equal code gives equal bytes on every machine: nothing in them depends on a clock, an order or a compressor.
"""

import base64
import hashlib
import importlib.metadata
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orchard_jobs
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.errors import ConfigurationError

ENTRY = "run_job.py"
ZIP = "orchard_jobs.zip"
MANIFEST = "manifest.json"
_DISTRIBUTION = "orchard-jobs"
# A wheel's own form for names.
_STEM = "orchard_jobs"
WHEEL = f"{_STEM}-{orchard_jobs.__version__}-py3-none-any.whl"
_WHEEL = "Wheel-Version: 1.0\nGenerator: orchard\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_NAMED_DIGITS = 12
_DATE = (2020, 2, 2, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """The files of one version of the jobs.

    Attributes:
        version: of `orchard-jobs`.
        files: content by file name: the wheel, the same bytes as .zip, the entry script, and the manifest, which comes last.
    """

    version: str
    files: dict[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 of the names and contents."""
        return digest_of(_described(self.files))

    @property
    def name(self) -> str:
        """The folder's name: `orchard-jobs-<version>-<first 12 digits of the digest>`."""
        return f"{_DISTRIBUTION}-{self.version}-{self.digest[:_NAMED_DIGITS]}"

    def write(self, folder: Path) -> Path:
        """Write the files into `folder/<name>` and return that; files that are there are written again, with the same bytes."""
        target = folder / self.name
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (target / name).write_bytes(content)
        return target


def digest_in(name: str) -> str | None:
    """Return the first 12 digits of the digest that a package's folder is named by; None for a folder of another name."""
    found = re.fullmatch(rf".*-([0-9a-f]{{{_NAMED_DIGITS}}})", name)
    return found[1] if found else None


def build_package() -> Package:
    """Return the package of the installed `orchard-jobs`.

    Raises:
        ConfigurationError: it is not installed as a distribution, or its metadata is of another version than its code.
    """
    wheel = _build_wheel()
    version = orchard_jobs.__version__
    entry = Path(orchard_jobs.__path__[0]) / "entry" / ENTRY
    # Spark unpacks only what is named .zip or .egg.
    files = {WHEEL: wheel, ZIP: wheel, ENTRY: entry.read_bytes()}
    described = {"name": _DISTRIBUTION, "version": version, "files": _described(files)}
    return Package(version, files | {MANIFEST: f"{json.dumps(described, indent=2, sort_keys=True)}\n".encode()})


def _described(files: dict[str, bytes]) -> dict[str, dict[str, object]]:
    found = {name: content for name, content in files.items() if name != MANIFEST}
    return {name: {"sha256": hashlib.sha256(one).hexdigest(), "size_bytes": len(one)} for name, one in found.items()}


def _build_wheel() -> bytes:
    """Return the wheel: the package and the installed metadata, uncompressed, with the same order and dates on every machine."""
    version = orchard_jobs.__version__
    info = f"{_STEM}-{version}.dist-info"
    files = dict(_sources()) | {f"{info}/{name}": content for name, content in _metadata().items()}
    record = [f"{name},sha256={_record_digest(content)},{len(content)}" for name, content in sorted(files.items())]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            # Not this machine's: Unix, a regular file that everybody may read.
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    root = Path(orchard_jobs.__path__[0])
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        yield path.relative_to(root.parent).as_posix(), path.read_bytes()


def _metadata() -> dict[str, bytes]:
    version = orchard_jobs.__version__
    try:
        installed = importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        where = orchard_jobs.__path__[0]
        raise ConfigurationError(
            f"{where} is not an installed {_DISTRIBUTION}, so a wheel of it lacks its metadata: install it"
        ) from error
    if installed.version != version:
        raise ConfigurationError(
            f"{_DISTRIBUTION} is installed as {installed.version}, its code says {version}: install it again"
        )
    texts = {name: installed.read_text(name) for name in ("METADATA", "entry_points.txt")}
    return {name: text.encode() for name, text in texts.items() if text} | {"WHEEL": _WHEEL.encode()}


def _record_digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    sys.stdout.write(f"{build_package().write(Path(sys.argv[1]))}\n")
