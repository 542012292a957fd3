"""Build the two environments, `.venv/airflow` and `.venv/jobs`, from the pinned files; do nothing when they are up to date.

With names as arguments it builds those instead: `jobs35` for the tests, `audit` for `make audit`, `daft` for `make bench`.

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
from typing import TextIO

from interpreters import Refusal, check_java, find_python

ROOT = Path(__file__).resolve().parent.parent
# Name of the environment -> its pinned files and the packages of this tree that it holds.
ENVIRONMENTS = {
    "airflow": (("airflow.txt", "dev.txt"), ("spark_jobs", ".")),
    "jobs": (("jobs.txt", "dev.txt"), ("spark_jobs",)),
    "jobs35": (("jobs35.txt",), ("spark_jobs",)),
    "audit": (("audit.txt",), ()),
    "daft": (("daft.txt",), ()),
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what is built at once, as Ctrl-C does
    try:
        python, version = find_python()
        if any(name.startswith("jobs") for name in names or USUAL):
            check_java()
        build_environments(python, version, tuple(names) or USUAL)
    except (Refusal, OSError, subprocess.SubprocessError) as error:
        print(f"orchard: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\norchard: stopped; `make setup` continues it", file=sys.stderr)
        return 130
    return 0


def build_environments(python: str, version: str, wanted: tuple[str, ...] = USUAL) -> None:
    """Make every wanted environment agree with its inputs; return at once when all do."""
    if not outdated(python, version, wanted):
        return
    folder = ROOT / ".venv"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        take(lock)
        names = outdated(python, version, wanted)
        if names:
            uv, settings = find_uv(python), uv_settings(python)
            print(f"setup: {', '.join(f'environment {name}' for name in names)} ...", flush=True)
            side_by_side(*(functools.partial(build_environment, name, python, version, uv, settings) for name in names))


def take(lock: TextIO) -> None:
    """Wait until no other `make` builds: the second of two finds everything done.

    All that is started meanwhile holds the lock, too. So what a killed set-up left behind ends before the next one begins.
    """
    os.set_inheritable(lock.fileno(), True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("setup: waiting for another `make`, or for what a killed one left behind ...", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def outdated(python: str, version: str, wanted: tuple[str, ...] = USUAL) -> list[str]:
    """Return the names of the environments that were never finished, or were built from other inputs."""
    return [name for name in wanted if stamp_of(name) != environment_digest(name, python, version)]


def stamp_of(name: str) -> str:
    """Return the digest that a finished environment was built from; an empty string for an unfinished one."""
    environment = ROOT / ".venv" / name
    try:
        return (environment / "stamp").read_text() if (environment / "bin" / "python").exists() else ""
    except OSError:
        return ""


def environment_digest(name: str, python: str, version: str) -> str:
    """Return the digest of everything that determines an environment."""
    files, packages = ENVIRONMENTS[name]
    digest = hashlib.sha256(f"{version} {os.path.realpath(python)} {ROOT}".encode())
    for file in [ROOT / "requirements" / file for file in files] + [ROOT / folder / "pyproject.toml" for folder in packages]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def find_uv(python: str) -> str:
    """Return the path of uv: on PATH, or installed here into an environment of its own."""
    found = shutil.which("uv")
    if found:
        return found
    environment, pins = ROOT / ".venv" / "uv", ROOT / "requirements" / "uv.txt"
    uv = str(environment / "bin" / "uv")
    if stamp_of("uv") == pins.read_text():
        return uv
    with step("uv, which is not on PATH"):
        shutil.rmtree(environment, ignore_errors=True)
        hint = "see the lines above; on Debian and Ubuntu `apt install python3-venv` may be missing"
        check(run([python, "-m", "venv", str(environment)], dict(os.environ)), hint)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--require-hashes", "-r", str(pins)]
        check(run(pip, dict(os.environ)), "see pip's lines above; a network or a package index that pip is set up for is needed")
        (environment / "stamp").write_text(pins.read_text())
    return uv


def build_environment(name: str, python: str, version: str, uv: str, settings: dict[str, str]) -> None:
    """Build one environment: update a finished one, and rebuild one that was interrupted."""
    environment = ROOT / ".venv" / name
    files, packages = ENVIRONMENTS[name]
    hint = (
        f"environment {name} is not built, for the reason in uv's lines above; if they name the network, it or a package "
        "index that pip or uv is set up for is needed"
    )
    target = ["--python", str(environment / "bin" / "python")]
    with step(f"environment {name}"):
        if stamp_of(name):
            (environment / "stamp").unlink()
        else:
            shutil.rmtree(environment, ignore_errors=True)
            check(run([uv, "venv", "--quiet", "--python", python, str(environment)], settings), hint)
        pins = [word for file in files for word in ("-r", str(ROOT / "requirements" / file))]
        # Compiled once here, not by each of Airflow's processes and Spark's workers where Python may not write beside its code.
        install = [uv, "pip", "install", "--exact", "--quiet", "--require-hashes", "--compile-bytecode", *target, *pins]
        check(run_uv(install, settings), hint)
        editables = [word for folder in packages for word in ("-e", str(ROOT / folder))]
        if editables:
            check(run_uv([uv, "pip", "install", "--quiet", "--no-deps", *target, *editables], settings), hint)
    if name == "jobs":
        side_by_side(functools.partial(archive_classes, environment), functools.partial(export_backbone, environment))
    (environment / "stamp").write_text(environment_digest(name, python, version))


def archive_classes(environment: Path) -> None:
    """Archive the classes that a job's JVM loads, which takes seconds off every start of Spark."""
    with step("Spark's class archive"):
        run_ahead(environment, "archive-classes", str(environment / "spark.jsa"))


def export_backbone(environment: Path) -> None:
    """Export the usual backbone, which the first batch of each warehouse would wait for."""
    with step("the backbone, exported"), tempfile.TemporaryDirectory() as warehouse:
        run_ahead(environment, "prepare", "--warehouse", warehouse)
        kept = environment / "share" / "orchard" / "networks"
        kept.mkdir(parents=True, exist_ok=True)
        for path in Path(warehouse, "_work", "networks").glob("*.onnx"):
            shutil.copyfile(path, kept / path.name)


def run_ahead(environment: Path, *arguments: str) -> None:
    """Run the jobs' command to prepare what would slow the first job down; a failure is only a warning."""
    command = [str(environment / "bin" / "orchard-jobs"), *arguments]
    own = dict(os.environ, SPARK_LOCAL_IP="127.0.0.1")
    process = None
    try:
        process = subprocess.Popen(
            command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, start_new_session=True
        )
        status = process.wait()
        failure = f"exit status {status}" if status else ""
    except OSError as error:
        failure = str(error)
    except KeyboardInterrupt:
        if process:
            os.killpg(process.pid, signal.SIGKILL)  # Spark's JVM ignores Ctrl-C
        raise
    if failure:
        print(f"setup: `orchard-jobs {arguments[0]}` failed ({failure}), so jobs start slower", file=sys.stderr)


def side_by_side(*works: Callable[[], None]) -> None:
    """Run functions in parallel, each in its own process, so that Ctrl-C stops all of them.

    Raises:
        Refusal: of the first in their order that raised one, once all have ended.
    """
    fork = multiprocessing.get_context("fork")
    children = []
    try:
        for work in works:
            answer = fork.SimpleQueue()
            child = fork.Process(target=run_and_answer, args=(work, answer))
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
            ended = f"a process of the set-up ended with {child.exitcode}; `make setup` continues it"
            raise Refusal(ended if answer.empty() else answer.get())


def run_and_answer(work: Callable[[], None], answer: SimpleQueue[str]) -> None:
    """Run one function of `side_by_side` in its process; report why it stopped, in one line."""
    try:
        work()
    except (Refusal, OSError) as error:
        answer.put(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def uv_settings(python: str) -> dict[str, str]:
    """Return the environment for uv: the user's, plus pip's settings where uv has none of its own."""
    settings = dict(os.environ, UV_PYTHON_DOWNLOADS="never")
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60)
    for name, value in re.findall(r"^[^=\n]*\.([a-z-]+)='(.*)'$", listing.stdout, re.MULTILINE):
        target = UV_OF_PIP.get(name)
        if target and not os.environ.get(target):
            settings[target] = value.replace("\\n", " ").strip()
    return settings


def run_uv(command: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run uv from its cache, then with the package index, then with the system's certificates."""
    finished = run(command, dict(settings, UV_OFFLINE="true"))
    if finished.returncode:
        finished = run(command, settings)
    if finished.returncode and re.search("certificate|UnknownIssuer", finished.stdout):
        # A company's own CA is in the system's store, where pip looks and uv by default does not.
        own = {name: value for name, value in settings.items() if name != "SSL_CERT_FILE"}
        finished = run(command, dict(own, UV_SYSTEM_CERTS="true", UV_NATIVE_TLS="true"))
    return finished


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command and return its status and its output."""
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, close_fds=False)


def check(finished: subprocess.CompletedProcess[str], hint: str) -> None:
    """Show what a command printed and raise Refusal when it failed."""
    if finished.returncode:
        print("\n" + "\n".join(finished.stdout.splitlines()[-30:]), file=sys.stderr)
        raise Refusal(f"`{' '.join(finished.args[:4])} ...` failed: {hint}")


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print a finished step with its duration, as one line, since steps run in parallel."""
    begin = time.monotonic()
    yield
    print(f"setup: {what}, {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
