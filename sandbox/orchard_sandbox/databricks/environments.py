"""Python environments of Databricks runs: the platform's packages, the wheel and its dependencies."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bootstrap

from orchard_sandbox.job_execution.job import MissingError

_PLATFORM = ("pyspark", "pandas", "numpy", "pyarrow", "grpcio", "grpcio-status", "googleapis-common-protos", "zstandard")


@dataclass
class Environments:
    """Python environments, one for each combination of wheel contents and dependencies; each is built once."""

    folder: Path
    python: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, wheels: Sequence[Path], packages: Sequence[str]) -> Path:
        """Return the Python of such an environment; raise MissingError with uv's message when the installation fails."""
        content = json.dumps([[hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels], sorted(packages), _pins()])
        environment = self.folder / hashlib.sha256(content.encode()).hexdigest()[:16]
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
        pins.write_text(_pins())
        install = [uv, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), "-c", str(pins)]
        # Apart, so that a package which the cache lacks does not have PySpark looked up at the index, too.
        for asked in (_PLATFORM, [*packages, *map(str, wheels)]):
            if asked:
                _check(bootstrap.run_uv([*install, *asked], settings))


def _pins() -> str:
    return "".join((bootstrap.ROOT / "requirements" / name).read_text() for name in ("jobs.txt", "dev.txt"))


def _check(finished: subprocess.CompletedProcess[str]) -> None:
    if finished.returncode:
        raise MissingError(f"Library installation failed: {finished.stdout.strip()[-2000:]}")
