"""A zip is taken off the path where it holds what is installed, compiled, and nowhere else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from orchard_jobs import entry
from orchard_jobs.entry import take_installed_pyspark

OWN = str(Path(pyspark.__file__).parent / "python" / "lib")


def path_after(monkeypatch: pytest.MonkeyPatch, *zips: str, without_installed: bool = False) -> list[str]:
    rest = ["/elsewhere"] if without_installed else list(sys.path)
    monkeypatch.setattr(sys, "path", [*zips, *rest])
    take_installed_pyspark()
    return sys.path[: len(sys.path) - len(rest)]


def test_the_zips_of_the_installed_pyspark_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(OWN)
    zips = [f"{OWN}/pyspark.zip", f"{OWN}/py4j-0.10.9.9-src.zip", f"{link}/pyspark.zip"]
    assert path_after(monkeypatch, *zips, "/job.zip") == ["/job.zip"]


def test_the_zips_of_another_pyspark_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_after(monkeypatch, "/usr/lib/spark/python/lib/pyspark.zip") == ["/usr/lib/spark/python/lib/pyspark.zip"]


def test_a_pyspark_that_is_only_zipped_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_after(monkeypatch, f"{OWN}/pyspark.zip", without_installed=True) == [f"{OWN}/pyspark.zip"]


def test_the_script_of_one_release_runs_with_the_package_of_another() -> None:
    """It asks for what the package has had since the first release, and nothing else."""
    script = (Path(entry.__path__[0]) / "run_job.py").read_text()
    assert {*re.findall(r"\b(?:cli|entry)\.\w+", script)} == {"cli.main", "entry.take_installed_pyspark"}
    assert callable(entry.take_installed_pyspark)


def test_a_driver_takes_the_installed_one() -> None:
    script = Path(entry.__path__[0]) / "run_job.py"
    path = os.pathsep.join([f"{OWN}/pyspark.zip", os.environ.get("PYTHONPATH", "")])
    python = [sys.executable, "-v", str(script), "rehearse"]
    no_java = {"PYTHONPATH": path, "JAVA_HOME": "/nowhere", "PATH": ""}
    told = subprocess.run(python, env=no_java, capture_output=True, text=True, check=False, timeout=120).stderr
    assert f"{Path(pyspark.__file__).parent}/sql/session.py" in told
    assert "pyspark.zip/pyspark" not in told
