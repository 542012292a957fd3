"""The jobs' package: equal bytes everywhere, what hatchling would build, and a wheel that installs and runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from orchard.deployment.package import MANIFEST, WHEEL, build_package
from orchard_jobs import __version__
from orchard_jobs.errors import ConfigurationError
from support.repository import ROOT

JOBS = ROOT / "spark_jobs"


def run_package(folder: Path, **environment: str) -> Path:
    """Build the package by its command, in a process of its own."""
    command = [sys.executable, "-m", "orchard.deployment.package", str(folder)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_another_process_clock_and_file_times_give_equal_bytes(tmp_path: Path) -> None:
    """Built from a copy of the tree with other times and modes, in another time zone, with the files made in another order."""
    copy = tmp_path / "copy"
    for path in sorted((JOBS / "orchard_jobs").rglob("*.py"), reverse=True):
        target = copy / path.relative_to(JOBS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o600)
        os.utime(target, (1_000_000_000, 1_000_000_000))
    (copy / "orchard_jobs" / "__pycache__").mkdir()
    (copy / "orchard_jobs" / "__pycache__" / "cli.cpython-311.pyc").write_bytes(b"compiled")
    found = run_package(tmp_path / "out", PYTHONPATH=f"{copy}", TZ="Asia/Tokyo", SOURCE_DATE_EPOCH="1700000000")
    built = build_package()
    assert found.name == built.name == f"orchard-jobs-{__version__}-{built.digest[:12]}"
    assert {path.name: path.read_bytes() for path in found.iterdir()} == built.files


def test_another_line_of_code_gives_another_name(tmp_path: Path) -> None:
    shutil.copytree(JOBS / "orchard_jobs", tmp_path / "copy" / "orchard_jobs")
    with (tmp_path / "copy" / "orchard_jobs" / "errors.py").open("a") as file:
        file.write("# another line\n")
    assert run_package(tmp_path / "out", PYTHONPATH=str(tmp_path / "copy")).name != build_package().name


def test_the_manifest_names_every_other_file_by_its_content() -> None:
    built = build_package()
    described = json.loads(built.files[MANIFEST])
    assert (described["name"], described["version"]) == ("orchard-jobs", __version__)
    assert {name: one["sha256"] for name, one in described["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in built.files.items() if name != MANIFEST
    }
    assert set(described["files"]) == {WHEEL, "orchard_jobs.zip", "run_job.py"}
    assert list(built.files)[-1] == MANIFEST


def test_the_wheel_holds_what_hatchling_builds(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], check=True, capture_output=True, cwd=JOBS)
    (theirs,) = tmp_path.glob("*.whl")
    built = build_package()
    ours = tmp_path / "ours.zip"
    ours.write_bytes(built.files[WHEEL])
    assert theirs.name == WHEEL
    contents = []
    for path in (theirs, ours):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            own = ("/RECORD", "/WHEEL")
            contents.append({name: archive.read(name) for name in archive.namelist() if not name.endswith(own)})
    assert contents[0] == contents[1]


def test_an_installed_wheel_runs_and_gives_the_same_package(tmp_path: Path) -> None:
    """As in a production Airflow: orchard beside an installed wheel of the jobs, with no source tree in sight."""
    built = build_package()
    folder = built.write(tmp_path)
    site = tmp_path / "site"
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(folder / WHEEL)]
    if shutil.which("uv") is None:
        install[:1] = [str(Path(sys.prefix).with_name("uv") / "bin" / "uv")]
    subprocess.run([*install, "--python", sys.executable], check=True, capture_output=True)
    command = [sys.executable, "-m", "orchard_jobs.cli", "--version"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == __version__
    assert run_package(tmp_path / "again", PYTHONPATH=str(site)).name == built.name


def test_the_entry_script_runs_with_the_zip_on_the_path(tmp_path: Path) -> None:
    folder = build_package().write(tmp_path)
    path = str(folder / "orchard_jobs.zip")
    command = [sys.executable, str(folder / "run_job.py"), "project", "--warehouse", "ftp://x", "--input-digest", "0"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f'File "{path}/orchard_jobs/cli.py"' in done.stderr, "its code came from elsewhere"
    assert "ConfigurationError: warehouse 'ftp://x' is neither" in done.stderr


def test_metadata_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchard_jobs.__version__", "0.0.9")
    with pytest.raises(ConfigurationError, match=rf"installed as {__version__}, its code says 0\.0\.9: install it again"):
        build_package()
