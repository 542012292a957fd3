"""The commands where something is wrong: one line each, and a stop that always stops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from orchard_sandbox.job_execution.processes import ProcessRecord
from orchard_sandbox.stack import cli, stack_state
from orchard_sandbox.stack.batches import read_batch
from orchard_sandbox.stack.command import write_aws_keys, write_command
from orchard_sandbox.stack.process_environment import airflow_environment
from orchard_sandbox.stack.stack_paths import ROOT, Layout
from orchard_sandbox.stack.stack_state import StackState, read_state, take_lock, write_state


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ORCHARD_COMPONENTS", "abc", "ORCHARD_COMPONENTS='abc': neither a whole number"),
        ("ORCHARD_TARGET", "mars", "must be one of local, emr_serverless"),
        ("ORCHARD_NOTIFIER", "no.Where", "ORCHARD_NOTIFIER='no.Where'"),
        ("ORCHARD_NOTIFIER_ARGUMENTS", '{"no_such": 1}', "unexpected keyword argument 'no_such'"),
        ("WAREHOUSE", "http://x/y", "neither an absolute path nor"),
        ("WAREHOUSE", "/data/or#chard", "choose another folder"),
        ("WAREHOUSE", "/proc/orchard", "WAREHOUSE=/proc/orchard cannot be written: "),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_started(tmp_path: Path, variable: str, value: str, words: str) -> None:
    home = tmp_path / "home"
    environment = os.environ | {"ORCHARD_HOME": str(home), "PYTHONPATH": str(ROOT / "sandbox"), variable: value}
    command = [sys.executable, "-m", "orchard_sandbox", "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert read_state(Layout(home)).processes == {}


def test_the_stacks_own_command_needs_no_exports(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a home with 'quotes' and $HOME")
    layout.create()
    state = StackState(s3_port=5, api_port=6)
    write_command(layout, airflow_environment(layout, state, os.environ | {"ORCHARD_LANDING": "s3://landing/it's here"}))
    assert layout.command.stat().st_mode & 0o777 == 0o700
    assert "SECRET" not in layout.command.read_text().replace("AWS_SECRET_ACCESS_KEY", "")
    bare = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run([layout.command, "status", "--no-listing"], env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "next: upload images to s3://landing/it's here/<batch>/<label>/<file>" in done.stdout
    wrong = subprocess.run(
        [layout.command, "export", "no table", "--to", "-"], env=bare, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "invalid choice: 'no table'" in wrong.stderr


def test_other_tools_take_the_keys_from_a_file_of_the_owner(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a home")
    layout.create()
    write_aws_keys(layout, airflow_environment(layout, StackState(s3_port=5, api_port=6), os.environ))
    assert layout.aws_keys.stat().st_mode & 0o777 == 0o600
    shell = ["sh", "-c", f". '{layout.aws_keys}'; env"]
    told = subprocess.run(shell, env={"PATH": os.defpath}, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in told.splitlines())
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:5"
    assert found["AWS_SECRET_ACCESS_KEY"] == layout.secret("s3")


def test_status_says_where_the_password_is_and_not_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    layout.create()
    layout.password_file.write_text('{"admin": "very-secret"}')
    write_state(layout, StackState({"scheduler": ProcessRecord("scheduler", 1, "boot:1", 1.0)}))
    assert cli.status(layout) == 0
    printed = capsys.readouterr().out
    assert str(layout.password_file) in printed
    assert "very-secret" not in printed


def test_a_stop_on_a_full_disk_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    layout.create()
    write_state(layout, StackState())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stack_state, "write_state", full)
    monkeypatch.setattr(os, "write", full)
    with take_lock(layout, "stop"):
        assert stack_state.stop_stack(layout) == (0, 0)
    assert not layout.state_file.exists()


def test_a_name_with_a_line_break_is_a_key(tmp_path: Path) -> None:
    (tmp_path / "apple").mkdir()
    (tmp_path / "apple" / "a\nb.jpg").write_bytes(b"x")
    assert list(read_batch(tmp_path, "2026-01-01").files) == ["apple/a\nb.jpg"]


def test_make_package_builds_what_a_cluster_runs(tmp_path: Path) -> None:
    folder = tmp_path / "a package"
    done = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", "package", f"PACKAGE={folder}"],
        capture_output=True,
        text=True,
        check=True,
    )
    package, backbone = map(Path, done.stdout.splitlines()[-2:])
    wheel, archive = package / "orchard_jobs-0.1.0-py3-none-any.whl", package / "orchard_jobs.zip"
    assert {path.name for path in package.iterdir()} == {wheel.name, archive.name, "run_job.py", "manifest.json"}
    assert wheel.read_bytes() == archive.read_bytes()
    assert backbone.parent == folder / "_work" / "networks"
    assert backbone.stat().st_size > 10_000_000
