"""Build the two environments, `.venv/airflow` and `.venv/jobs`, from the pinned files; do nothing when they are up to date.

With names as arguments it builds these instead: `jobs35`, the jobs beside Spark 3.5, which the tests alone need.

Standard library only, and in the syntax of Python 3.8, so that a Python or Java that does not fit gives one clear line.
It knows nothing of the stack that later runs in the environments.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.13", "3.12", "3.11")
JAVAS = (17, 21)
UV = "uv==0.13.9"
# Name of the environment -> its pinned files and the packages of this tree that it holds.
ENVIRONMENTS = {
    "airflow": (("airflow.txt", "dev.txt"), ("spark_jobs", ".")),
    "jobs": (("jobs.txt", "dev.txt"), ("spark_jobs",)),
    "jobs35": (("jobs35.txt",), ("spark_jobs",)),
}
USUAL = ("airflow", "jobs")
# uv does not read pip's settings: a machine that is set up for pip alone would otherwise not find its index.
UV_OF_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


class Refusal(Exception):
    """One line for the user: what was found, what is needed, how to get it."""


def main(names: list[str]) -> int:
    """Check the machine, build what is missing; print one line and return 1 when something is missing or wrong."""
    try:
        python, version = find_python()
        if names != ["airflow"]:  # which alone is enough to upload
            check_java()
        build_environments(python, version, tuple(names) or USUAL)
    except Refusal as refusal:
        print(f"orchard: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\norchard: stopped; `make setup` takes it up again", file=sys.stderr)
        return 130
    return 0


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
    """Say whether a Python version is one of those that the pinned files are for."""
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


def build_environments(python: str, version: str, wanted: tuple[str, ...] = USUAL) -> None:
    """Make every wanted environment agree with its inputs; return at once when all do."""
    if not outdated(python, version, wanted):
        return
    folder = ROOT / ".venv"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits, then finds everything done
        names = outdated(python, version, wanted)
        if names:
            uv = find_uv(python)
            for name in names:
                build_environment(name, python, version, uv)


def outdated(python: str, version: str, wanted: tuple[str, ...] = USUAL) -> list[str]:
    """Return the names of the environments whose stamp is missing or of other inputs."""
    return [name for name in wanted if stamp_of(name) != digest_of(name, python, version)]


def stamp_of(name: str) -> str:
    """Return the digest that a finished environment was built from; nothing for a broken or interrupted one."""
    environment = ROOT / ".venv" / name
    try:
        return (environment / "stamp").read_text() if (environment / "bin" / "python").exists() else ""
    except OSError:
        return ""


def digest_of(name: str, python: str, version: str) -> str:
    """Return the digest of all that decides an environment."""
    files, packages = ENVIRONMENTS[name]
    digest = hashlib.sha256(f"{version} {os.path.realpath(python)} {ROOT}".encode())
    for file in [ROOT / "requirements" / file for file in files] + [ROOT / folder / "pyproject.toml" for folder in packages]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def find_uv(python: str) -> str:
    """Return uv's path: on PATH, or in an environment of its own that is made here."""
    found = shutil.which("uv")
    if found:
        return found
    environment = ROOT / ".venv" / "uv"
    uv = environment / "bin" / "uv"
    if uv.exists() and (environment / "stamp").exists():
        return str(uv)
    with step("uv, which is not on PATH"):
        shutil.rmtree(environment, ignore_errors=True)
        hint = "see the lines above; on Debian and Ubuntu `apt install python3-venv` may be missing"
        call([python, "-m", "venv", str(environment)], dict(os.environ), hint)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV]
        call(pip, dict(os.environ), "see pip's lines above; a network or a package index that pip is set up for is needed")
        (environment / "stamp").write_text(UV)
    return str(uv)


def build_environment(name: str, python: str, version: str, uv: str) -> None:
    """Build one environment; one without a stamp was interrupted and is made anew, a finished one is brought up to date."""
    environment = ROOT / ".venv" / name
    files, packages = ENVIRONMENTS[name]
    settings = uv_settings(python)
    hint = "see uv's lines above; a network or a package index that pip or uv is set up for is needed"
    target = ["--python", str(environment / "bin" / "python")]
    with step(f"environment {name}"):
        if stamp_of(name):
            (environment / "stamp").unlink()
        else:
            shutil.rmtree(environment, ignore_errors=True)
            call([uv, "venv", "--quiet", "--python", python, str(environment)], settings, hint)
        pins = [str(ROOT / "requirements" / file) for file in files]
        # Compiled once here, not by each of Airflow's processes and Spark's workers where Python may not write beside its code.
        call_with_tls([uv, "pip", "sync", "--quiet", "--compile-bytecode", *target, *pins], settings, hint)
        editables = [word for folder in packages for word in ("-e", str(ROOT / folder))]
        call_with_tls([uv, "pip", "install", "--quiet", "--no-deps", *target, *editables], settings, hint)
    if name == "jobs":
        archive_classes(environment)
        export_network(environment)
    (environment / "stamp").write_text(digest_of(name, python, version))


def archive_classes(environment: Path) -> None:
    """Archive the classes that a job's JVM loads, which takes seconds off every start of Spark."""
    with step("Spark's class archive"):
        speed_up(environment, "archive-classes", str(environment / "spark.jsa"))


def export_network(environment: Path) -> None:
    """Export the usual backbone's network, which the first batch of each warehouse would wait for."""
    with step("the network, exported"), tempfile.TemporaryDirectory() as warehouse:
        speed_up(environment, "prepare", "--warehouse", warehouse)
        kept = environment / "share" / "orchard" / "networks"
        kept.mkdir(parents=True, exist_ok=True)
        for path in Path(warehouse, "_work", "networks").glob("*.onnx"):
            shutil.copyfile(path, kept / path.name)


def speed_up(environment: Path, *arguments: str) -> None:
    """Run the jobs' command for something that is quicker to have beforehand; go on without it when that fails."""
    command = [str(environment / "bin" / "orchard-jobs"), *arguments]
    try:
        own = dict(os.environ, SPARK_LOCAL_IP="127.0.0.1")
        subprocess.run(command, env=own, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"failed ({error}), so jobs start slower ...", end=" ", file=sys.stderr)


def uv_settings(python: str) -> dict[str, str]:
    """Return the environment for uv: the user's, and pip's settings where uv has none of its own."""
    settings = dict(os.environ, UV_PYTHON_DOWNLOADS="never")
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60)
    for name, value in re.findall(r"^[^=\n]*\.([a-z-]+)='(.*)'$", listing.stdout, re.MULTILINE):
        target = UV_OF_PIP.get(name)
        if target and not os.environ.get(target):
            settings[target] = value.replace("\\n", " ").strip()
    return settings


def call_with_tls(command: list[str], settings: dict[str, str], hint: str) -> None:
    """Run uv; once more with the system's certificates when a certificate was not trusted."""
    finished = subprocess.run(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode and re.search("certificate|UnknownIssuer", finished.stdout):
        # A company's own CA is in the system's store, where pip looks and uv by default does not.
        own = {name: value for name, value in settings.items() if name != "SSL_CERT_FILE"}
        call(command, dict(own, UV_SYSTEM_CERTS="true", UV_NATIVE_TLS="true"), hint)
    elif finished.returncode:
        refuse(command, finished.stdout, hint)


def call(command: list[str], environment: dict[str, str], hint: str) -> None:
    """Run a command; show what it printed and raise Refusal when it fails."""
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode:
        refuse(command, finished.stdout, hint)


def refuse(command: list[str], output: str, hint: str) -> None:
    """Show what a command printed and raise Refusal."""
    print("\n" + "\n".join(output.splitlines()[-30:]), file=sys.stderr)
    raise Refusal(f"`{' '.join(command[:4])} ...` failed: {hint}")


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print a line of progress, then its seconds."""
    print(f"setup: {what} ...", end=" ", flush=True)
    begin = time.monotonic()
    yield
    print(f"{time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
