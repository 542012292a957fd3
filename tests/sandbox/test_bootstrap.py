"""The bootstrap: one line for what is missing or wrong, a stamp that makes the second call free, a redo of broken builds."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import bootstrap
import interpreters
import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = "{}.{}.{}".format(*sys.version_info[:3])


def program(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def bootstrap_with(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": os.environ.get("HOME", "/")} | variables
    return subprocess.run(
        [sys.executable, str(ROOT / "sandbox" / "bootstrap.py")], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("java", "found"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "found Java 11.0.2"),
        ("echo 'java version \"1.8.0_361\"' >&2", "found Java 1.8.0_361"),
        ("echo 'openjdk version \"25\" 2025-09-16' >&2", "found Java 25 "),
        ("exit 1", "found Java that does not start"),
    ],
)
def test_a_wrong_java_is_one_line(tmp_path: Path, java: str, found: str) -> None:
    program(tmp_path, "java", java)
    answer = bootstrap_with(tmp_path)
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert found in answer.stderr
    assert "needs Java 17 or 21: install one" in answer.stderr


def test_no_java_and_an_empty_java_home_are_one_line(tmp_path: Path) -> None:
    for answer in (bootstrap_with(tmp_path), bootstrap_with(tmp_path, JAVA_HOME=str(tmp_path))):
        assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1)
    assert f"no bin/java in JAVA_HOME={tmp_path}" in answer.stderr


def test_java_home_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "java", "exit 1")
    (tmp_path / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="21.0.4"\n')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    interpreters.check_java()


def test_a_chosen_python_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    old = program(tmp_path, "old", "echo 3.9.2")
    answer = bootstrap_with(tmp_path, ORCHARD_PYTHON=str(old))
    assert answer.returncode == 1
    assert answer.stderr == (
        f"orchard: ORCHARD_PYTHON={old} is Python 3.9.2, but Orchard needs Python 3.11, 3.12 or 3.13: "
        "name one of these, or unset ORCHARD_PYTHON\n"
    )


def test_another_python_on_path_is_taken_when_this_one_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHARD_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(interpreters.Refusal, match=r"found Python 3\.9\.18 .* install one"):
        interpreters.find_python()
    program(tmp_path, "python3.13", "exit 127")  # a pyenv shim of a version that is not chosen
    twelve = program(tmp_path, "python3.12", "echo 3.12.4")
    assert interpreters.find_python() == (str(twelve), "3.12.4")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose uv writes down how it is called, makes the environment on `venv` and fails where `broken` is."""
    pinned = [f"requirements/{name}.txt" for name in ("airflow", "jobs", "jobs35", "daft", "dev", "audit", "uv")]
    for name in [*pinned, "pyproject.toml"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "spark_jobs").mkdir()
    (tmp_path / "spark_jobs" / "pyproject.toml").write_text("jobs")
    program(
        tmp_path / "bin",
        "uv",
        f'echo "$@" "offline=$UV_OFFLINE" >> {tmp_path}/calls',
        f"[ -e {tmp_path}/new ] && [ $1 = pip ] && [ $UV_OFFLINE ] && exit 1",
        f"[ -e {tmp_path}/broken ] && [ $1 = pip ] && cat {tmp_path}/broken && [ -z $UV_SYSTEM_CERTS ] && exit 1",
        f"if [ $1 = venv ]; then for last; do :; done; mkdir -p $last/bin; ln -sf {sys.executable} $last/bin/python; fi",
        "exit 0",
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    return tmp_path


def calls(tree: Path) -> list[str]:
    """Return how uv was called, sorted: two environments are built at once."""
    found = (tree / "calls").read_text().splitlines() if (tree / "calls").exists() else []
    (tree / "calls").unlink(missing_ok=True)
    return sorted(" ".join(call.split()[:2]) for call in found)


def test_only_a_changed_environment_is_brought_up_to_date(tree: Path) -> None:
    bootstrap.build_environments(sys.executable, OWN)
    assert calls(tree) == ["pip install"] * 4 + ["venv --quiet"] * 2
    bootstrap.build_environments(sys.executable, OWN)
    assert calls(tree) == []
    (tree / "requirements" / "jobs.txt").write_text("another pin")
    assert bootstrap.outdated(sys.executable, OWN) == ["jobs"]
    bootstrap.build_environments(sys.executable, OWN)
    assert calls(tree) == ["pip install"] * 2


def test_every_pin_is_installed_by_its_hashes(tree: Path) -> None:
    bootstrap.build_environments(sys.executable, OWN, ("airflow", "jobs", "jobs35", "audit"))
    pinned = [call for call in (tree / "calls").read_text().splitlines() if " -r " in call]
    assert len(pinned) == 4
    assert all("--require-hashes" in call for call in pinned)


def test_the_index_is_asked_only_for_what_the_cache_lacks(tree: Path) -> None:
    bootstrap.build_environments(sys.executable, OWN)
    assert "pip install" in (tree / "calls").read_text()
    assert not [call for call in (tree / "calls").read_text().splitlines() if "pip" in call and "offline=true" not in call]
    (tree / "new").touch()
    (tree / "requirements" / "jobs.txt").write_text("another pin")
    calls(tree)
    bootstrap.build_environments(sys.executable, OWN)
    told = (tree / "calls").read_text().splitlines()
    assert ["--exact" in call for call in told] == [True, True, False, False]  # what is no longer pinned goes
    assert [call.rpartition("offline=")[2] for call in told] == ["true", ""] * 2


def test_an_environment_for_the_tests_is_built_only_when_it_is_named(tree: Path) -> None:
    bootstrap.build_environments(sys.executable, OWN)
    assert not (tree / ".venv" / "jobs35").exists()
    calls(tree)
    bootstrap.build_environments(sys.executable, OWN, ("jobs35",))
    assert calls(tree) == ["pip install", "pip install", "venv --quiet"]
    bootstrap.build_environments(sys.executable, OWN, ("jobs35",))
    assert calls(tree) == []


def test_an_interrupted_build_is_done_again(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tree / "broken").write_text("no such package")
    with pytest.raises(interpreters.Refusal, match="uv pip install"):
        bootstrap.build_environments(sys.executable, OWN)
    assert "no such package" in capfd.readouterr().err
    left = tree / ".venv" / "airflow" / "left over"
    left.touch()
    (tree / "broken").unlink()
    bootstrap.build_environments(sys.executable, OWN)
    assert not left.exists()
    assert bootstrap.outdated(sys.executable, OWN) == []


def command_in(tree: Path, *names: str) -> list[str]:
    """Return the set-up's command line with another checkout."""
    code = f"import sys, bootstrap, pathlib; bootstrap.ROOT = pathlib.Path({str(tree)!r}); sys.exit(bootstrap.main({[*names]}))"
    return [sys.executable, "-c", code]


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended: it may be there a moment longer, until the one that adopted it looks."""
    deadline = time.monotonic() + 10
    with suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_that_is_built_at_once(tree: Path, number: signal.Signals) -> None:
    """Sent to the one process alone, as `kill` does; Ctrl-C reaches them all."""
    program(tree / "bin", "uv", f"echo $$ >> {tree}/begun", "exec sleep 60")
    program(tree / "bin", "java", "echo 'openjdk version \"17.0.1\"' >&2")
    variables = os.environ | {"PYTHONPATH": str(ROOT / "sandbox")}
    variables.pop("JAVA_HOME", None)
    begun = tree / "begun"
    with subprocess.Popen(command_in(tree), env=variables, stderr=subprocess.PIPE, text=True) as process:
        while not begun.exists() or len(begun.read_text().splitlines()) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "\norchard: stopped; `make setup` continues it\n")
    for pid in map(int, begun.read_text().split()):
        wait_for_end(pid)


def test_an_interrupt_ends_a_jvm_that_ignores_it(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program(tmp_path / "bin", "orchard-jobs", "trap '' INT", f"sleep 60 & echo $! >{started}", "wait")
    code = f"import bootstrap, pathlib; bootstrap.run_ahead(pathlib.Path({str(tmp_path)!r}), 'archive-classes')"
    variables = os.environ | {"PYTHONPATH": str(ROOT / "sandbox")}
    with subprocess.Popen([sys.executable, "-c", code], env=variables, stderr=subprocess.DEVNULL) as process:
        while not started.exists() or not started.read_text():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    wait_for_end(int(started.read_text()))


def test_a_build_that_is_killed_is_told(tree: Path) -> None:
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(interpreters.Refusal, match="ended with -9; `make setup` continues it"):
        bootstrap.side_by_side(lambda: None, killed)


def test_what_a_killed_set_up_left_behind_is_waited_for(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """uv holds the lock as long as it lives, though its `make setup` is gone."""
    program(tree / "bin", "slow", f"echo $$ >{tree}/begun", f"until [ -e {tree}/go ]; do sleep 0.05; done")
    (tree / ".venv").mkdir()
    with (tree / ".venv" / "lock").open("w") as lock:
        bootstrap.take(lock)
        left = threading.Thread(target=bootstrap.run, args=([str(tree / "bin" / "slow")], dict(os.environ)))
        left.start()
        while not (tree / "begun").exists():
            time.sleep(0.05)
    threading.Timer(0.5, (tree / "go").touch).start()
    bootstrap.build_environments(sys.executable, OWN)
    assert (tree / "go").exists()
    assert "waiting for another `make`" in capsys.readouterr().out
    left.join()


def test_a_folder_that_cannot_be_made_is_one_line(tree: Path) -> None:
    (tree / ".venv").touch()
    variables = os.environ | {"PYTHONPATH": str(ROOT / "sandbox")}
    done = subprocess.run(command_in(tree, "airflow"), env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"orchard: [Errno 17] File exists: '{tree}/.venv'\n")


def test_an_untrusted_certificate_is_tried_again_with_the_systems(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_SYSTEM_CERTS", raising=False)
    (tree / "broken").write_text("invalid peer certificate: UnknownIssuer")
    bootstrap.build_environments(sys.executable, OWN)
    assert bootstrap.outdated(sys.executable, OWN) == []


def test_pips_settings_are_handed_on_to_uv_unless_it_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = program(
        tmp_path, "python", "echo \"global.index-url='https://pip.example/simple'\"", "echo \"global.cert='/ca.pem'\""
    )
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/own.pem")
    settings = bootstrap.uv_settings(str(python))
    assert settings["UV_DEFAULT_INDEX"] == "https://pip.example/simple"
    assert settings["SSL_CERT_FILE"] == "/own.pem"


def test_an_environment_keeps_the_exported_backbone_if_there_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = 'mkdir -p "$3/_work/networks" && echo "$1" >"$3/_work/networks/x-1.onnx"'
    program(tmp_path / "bin", "orchard-jobs", made)
    bootstrap.export_backbone(tmp_path)
    assert (tmp_path / "share" / "orchard" / "networks" / "x-1.onnx").read_text() == "prepare\n"
    program(tmp_path / "bin", "orchard-jobs", "exit 3")
    bootstrap.export_backbone(tmp_path)
    assert "exit status 3" in capsys.readouterr().err
