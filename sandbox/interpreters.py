"""The Python and the Java that `make` takes on this machine, or one line that says which one is needed.

Written under the rules of bootstrap.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ("3.13", "3.12", "3.11")
JAVAS = (17, 21)


class Refusal(Exception):
    """One line for the user: what was found, what is needed, how to get it."""


def find_python() -> tuple[str, str]:
    """Return (path, version) of a Python that fits: ORCHARD_PYTHON, this one, or the newest on PATH."""
    chosen = os.environ.get("ORCHARD_PYTHON")
    if chosen:
        version = version_of_python(chosen)
        if fits(version):
            return shutil.which(chosen) or chosen, version
        found = f"ORCHARD_PYTHON={chosen} is Python {version}" if version else f"ORCHARD_PYTHON={chosen} does not start"
        raise Refusal(f"{found}, but Orchard needs Python 3.11, 3.12 or 3.13: name one of these, or unset ORCHARD_PYTHON")
    own = "{}.{}.{}".format(*sys.version_info[:3])
    if fits(own):
        return sys.executable, own
    for minor in PYTHONS:
        path = shutil.which(f"python{minor}")
        version = version_of_python(path) if path else ""
        if path and fits(version):
            return path, version
    raise Refusal(
        f"found Python {own} ({sys.executable}), but Orchard needs Python 3.11, 3.12 or 3.13: install one "
        "(apt install python3.11, brew install python@3.12), or set ORCHARD_PYTHON to one"
    )


def fits(version: str) -> bool:
    """Say whether the pinned files support a Python version."""
    return version.rpartition(".")[0] in PYTHONS


def version_of_python(command: str) -> str:
    """Return a Python's version, or nothing when it does not start (a pyenv shim of an unchosen version)."""
    ask = [command, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def check_java() -> None:
    """Raise Refusal unless the Java that Spark will take (JAVA_HOME first, then PATH) is 17 or 21."""
    home = os.environ.get("JAVA_HOME")
    command = os.path.join(home, "bin", "java") if home else shutil.which("java")
    get = "install one (apt install openjdk-17-jre-headless, brew install openjdk@17) and set JAVA_HOME or PATH to it"
    if not command or not os.path.exists(command):
        where = f"no bin/java in JAVA_HOME={home}" if home else "no java on PATH and no JAVA_HOME"
        raise Refusal(f"found {where}, but Spark needs Java 17 or 21: {get}")
    version = version_of_java(command)
    match = re.match(r"(?:1\.)?(\d+)", version)
    if not match or int(match.group(1)) not in JAVAS:
        raise Refusal(f"found Java {version or 'that does not start'} ({command}), but Spark needs Java 17 or 21: {get}")


def version_of_java(command: str) -> str:
    """Return a Java's version: from the `release` file beside it, which costs no start, or by asking it."""
    release = Path(command).resolve().parent.parent / "release"
    with contextlib.suppress(OSError):
        match = re.search(r'^JAVA_VERSION="([^"]+)"', release.read_text(errors="replace"), re.MULTILINE)
        if match:
            return match.group(1)
    try:
        answer = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r'version "([^"]+)"', answer.stderr + answer.stdout)
    return match.group(1) if match and answer.returncode == 0 else ""
