"""Build the two environments, `.venv/airflow` and `.venv/jobs`, from the pinned files; do nothing when they are up to date.

With names as arguments it builds these instead: `jobs35`, the jobs beside Spark 3.5, which the tests alone need.

Standard library only, and in the syntax of Python 3.8, so that a Python or Java that does not fit gives one clear line.
It knows nothing of the stack that later runs in the environments.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from interpreters import Refusal, check_java, find_python

ROOT = Path(__file__).resolve().parent.parent
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
            print(f"setup: {', '.join(f'environment {name}' for name in names)} ...", flush=True)
            side_by_side(*(functools.partial(build_environment, name, python, version, uv) for name in names))


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
        pins = [word for file in files for word in ("-r", str(ROOT / "requirements" / file))]
        # Compiled once here, not by each of Airflow's processes and Spark's workers where Python may not write beside its code.
        install([uv, "pip", "install", "--exact", "--quiet", "--compile-bytecode", *target, *pins], settings, hint)
        editables = [word for folder in packages for word in ("-e", str(ROOT / folder))]
        install([uv, "pip", "install", "--quiet", "--no-deps", *target, *editables], settings, hint)
    if name == "jobs":
        side_by_side(functools.partial(archive_classes, environment), functools.partial(export_network, environment))
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
        print(f"setup: `orchard-jobs {arguments[0]}` failed ({error}), so jobs start slower", file=sys.stderr)


def side_by_side(*works: Callable[[], None]) -> None:
    """Run works at once, each in a process of its own: Ctrl-C then stops each as it would stop one.

    Raises:
        Refusal: of the first in their order that raised one, once all have ended.
    """
    fork = multiprocessing.get_context("fork")
    children = []
    try:
        for work in works:
            answer = fork.SimpleQueue()
            child = fork.Process(target=do, args=(work, answer))
            child.start()
            children.append((child, answer))
        for child, _ in children:
            child.join()
    except KeyboardInterrupt:
        for child, _ in children:
            if child.pid and child.is_alive():
                os.kill(child.pid, signal.SIGINT)
            child.join()
        raise
    for child, answer in children:
        if child.exitcode:
            ended = f"a process of the set-up ended with {child.exitcode}; `make setup` takes it up again"
            raise Refusal(ended if answer.empty() else answer.get())


def do(work: Callable[[], None], answer: SimpleQueue[str]) -> None:
    """Do a work of `side_by_side` in its process; answer with the line of what stopped it."""
    try:
        work()
    except (Refusal, OSError) as error:
        answer.put(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def uv_settings(python: str) -> dict[str, str]:
    """Return the environment for uv: the user's, and pip's settings where uv has none of its own."""
    settings = dict(os.environ, UV_PYTHON_DOWNLOADS="never")
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60)
    for name, value in re.findall(r"^[^=\n]*\.([a-z-]+)='(.*)'$", listing.stdout, re.MULTILINE):
        target = UV_OF_PIP.get(name)
        if target and not os.environ.get(target):
            settings[target] = value.replace("\\n", " ").strip()
    return settings


def install(command: list[str], settings: dict[str, str], hint: str) -> None:
    """Run uv on what its cache holds; where that is not all, with the index, whose certificate may need the system's store."""
    offline = dict(settings, UV_OFFLINE="true")
    if subprocess.run(command, env=offline, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return
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
    """Print what was done, with its seconds: one line at its end, since others are done at once."""
    begin = time.monotonic()
    yield
    print(f"setup: {what}, {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
