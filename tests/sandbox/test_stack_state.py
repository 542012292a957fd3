"""The record of what runs, its lock, the environment, and the commands that work without a stack."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from orchard_sandbox.errors import SandboxError
from orchard_sandbox.job_execution.processes import ProcessRecord
from orchard_sandbox.stack.process_environment import airflow_environment, digests_at_start, warehouse
from orchard_sandbox.stack.stack_paths import Layout
from orchard_sandbox.stack.stack_state import StackState, hold_lock, read_state, remove_home, stop_stack, take_lock, write_state
from orchard_sandbox.stack.supervisor import AIRFLOW, interrupts_held

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from orchard_sandbox.stack.stack_paths import Layout
from orchard_sandbox.stack.stack_state import hold_lock
with hold_lock(Layout(Path(sys.argv[1])), "run"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "home")
    layout.create()
    return layout


def command(layout: Layout, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ORCHARD_HOME": str(layout.home), "PYTHONPATH": str(ROOT / "sandbox")}
    call = [sys.executable, "-m", "orchard_sandbox", *words]
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_state_is_read_back_and_only_its_owner_can_read_it(layout: Layout) -> None:
    state = StackState({"a": ProcessRecord("a", 1, "boot:2", 3.0)}, 4, 5, {"scheduler": "six"})
    write_state(layout, state)
    assert read_state(layout) == state
    for path in (layout.state_file, layout.home):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"processes": {"a": {}}}', '{"processes": {}, "of": "a later version"}'])
def test_a_damaged_state_is_no_obstacle(layout: Layout, text: str) -> None:
    layout.state_file.write_text(text)
    assert read_state(layout) == StackState()
    assert stop_stack(layout) == (0, 0)


def test_secrets_are_long_kept_and_private(layout: Layout) -> None:
    secret = layout.secret("jwt")
    assert len(secret) >= 64
    assert secret == layout.secret("jwt") != layout.secret("api")
    assert stat.S_IMODE((layout.home / "secret-jwt").stat().st_mode) == 0o600


def test_a_second_run_is_refused_and_a_stop_ends_the_first(layout: Layout) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(layout.home)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "sandbox")},
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        with pytest.raises(SandboxError, match=rf"another `make run` \(process {holder.pid}\)"), hold_lock(layout, "run"):
            pass
        with take_lock(layout, "stop", seconds=10):
            assert holder.wait(10) == -signal.SIGTERM
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with hold_lock(layout, "run"):
        assert json.loads(layout.lock_file.read_text())["pid"] == os.getpid()


def test_an_interrupt_while_a_process_is_started_comes_afterwards(request: pytest.FixtureRequest) -> None:
    done = []

    def start_while_interrupted() -> None:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            done.append(True)

    # Where the tests run in the background of a shell, an interrupt is ignored.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, former))
    with pytest.raises(KeyboardInterrupt):
        start_while_interrupted()
    assert done


def test_nothing_of_other_installations_leaks_into_the_environment(layout: Layout) -> None:
    state = StackState(s3_port=1, api_port=2)
    user = {
        "PATH": "/bin",
        "AIRFLOW__CORE__EXECUTOR": "Celery",
        "AWS_PROFILE": "work",
        "SPARK_HOME": "/opt/spark",
        "MAKEFLAGS": "-j",
        "ORCHARD_QUIET_SECONDS": "9",
        "ENGINE": "tensorflow",
        "JAVA_HOME": "/java",
    }
    made = airflow_environment(layout, state, user)
    assert {"AWS_PROFILE", "SPARK_HOME", "MAKEFLAGS"}.isdisjoint(made)
    assert made["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert (made["ORCHARD_QUIET_SECONDS"], made["ORCHARD_ENGINE"], made["JAVA_HOME"]) == ("9", "tensorflow", "/java")
    assert made["PATH"].split(":")[-1] == "/bin"
    assert made["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert made["ORCHARD_WAREHOUSE"] == f"file://{layout.home}/warehouse"
    before = digests_at_start(layout, made)
    for change, same in (
        ({"ORCHARD_ENGINE": "onnx"}, {"api-server", "triggerer"}),
        ({"JAVA_HOME": "/another"}, {"api-server", "triggerer"}),
        ({"ORCHARD_WAREHOUSE": "/another"}, {"triggerer"}),
        ({"AIRFLOW_CONN_AWS_DEFAULT": "{}"}, set()),
        ({"AIRFLOW__CORE__PARALLELISM": "9"}, set()),
        ({"TERM": "dumb"}, set(AIRFLOW)),
    ):
        after = digests_at_start(layout, made | change)
        assert {name for name in AIRFLOW if after[name] == before[name]} == same


def test_what_differs_decides_which_processes_start_anew(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", dags=tmp_path / "dags", plugins=tmp_path / "plugins", environments=tmp_path / "venv")
    source, stamp = tmp_path / "plugins" / "orchard" / "sensors.py", tmp_path / "venv" / "jobs" / "stamp"
    dag = tmp_path / "dags" / "image_batches.py"
    for path, same in ((source, set()), (stamp, set()), (dag, {"api-server"})):
        path.parent.mkdir(parents=True)
        path.write_text("before")
        before = digests_at_start(layout, {})
        path.write_text("after")
        after = digests_at_start(layout, {})
        assert {name for name in AIRFLOW if after[name] == before[name]} == same


def test_the_record_of_another_release_is_read_as_far_as_it_is_known(layout: Layout) -> None:
    record = ProcessRecord("scheduler", 1, "boot:1", 1.0)
    told = {"processes": {"scheduler": vars(record)}, "s3_port": 5, "settings_digest": "x", "server_digest": "y"}
    layout.state_file.parent.mkdir(parents=True, exist_ok=True)
    layout.state_file.write_text(json.dumps(told))
    assert read_state(layout) == StackState({"scheduler": record}, s3_port=5)


def test_a_warehouse_may_be_a_relative_path_or_a_uri(layout: Layout) -> None:
    assert warehouse(layout, {"WAREHOUSE": "tables"}) == f"file://{Path.cwd()}/tables"
    assert warehouse(layout, {"WAREHOUSE": "s3://tables/x/"}) == "s3://tables/x"


def test_a_clean_never_removes_a_folder_of_somebody(tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(SandboxError, match="was not made by Orchard"):
        remove_home(Layout(tmp_path / "mine"))
    answer = command(Layout(tmp_path / "mine"), "clean")
    assert (answer.returncode, (tmp_path / "mine").exists()) == (1, True)
    answer = command(layout, "clean")
    assert (answer.returncode, layout.home.exists()) == (0, False)
    assert "stop: 0 processes ended" in answer.stdout


def test_status_stop_and_clean_need_the_standard_library_alone(layout: Layout) -> None:
    """As `make` runs them without the environments: `-S` hides all that is installed."""
    environment = {"PATH": os.defpath, "ORCHARD_HOME": str(layout.home), "PYTHONPATH": str(ROOT / "sandbox")}
    for word, told in (("status", "nothing runs"), ("stop", "stop: 0 processes ended"), ("clean", "is removed")):
        call = [sys.executable, "-S", "-m", "orchard_sandbox", word]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert told in done.stdout


def test_status_stop_and_upload_without_a_stack_say_so(layout: Layout, tmp_path: Path) -> None:
    assert "nothing runs" in command(layout, "status").stdout
    assert "nothing runs" in command(Layout(tmp_path / "none"), "stop").stdout
    answer = command(layout, "upload")
    assert (answer.returncode, answer.stderr) == (1, "orchard: the stack does not run: `make run` starts it, and uploads too\n")


@pytest.mark.parametrize(
    ("to", "secret", "words"),
    [
        ("http://127.0.0.1:1", "", "TO needs the server's credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("http://127.0.0.1:1", "b", "cannot upload to TO=http://127.0.0.1:1: Could not connect"),
        ("nonsense", "b", "cannot upload to TO=nonsense: Invalid endpoint"),
    ],
)
def test_an_upload_elsewhere_that_fails_is_one_line(
    to: str, secret: str, words: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TO", to), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", secret)):
        monkeypatch.setenv(name, value)
    answer = command(layout, "upload")
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert words in answer.stderr


def test_plain_make_prints_help_and_does_nothing() -> None:
    answer = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    told = {line.split()[1] for line in answer.stdout.splitlines() if line.startswith("  make ")}
    assert told >= {"run", "stop", "test"}
    declared = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert told == set(declared.split()[1:])
