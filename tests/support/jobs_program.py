"""A program that stands for the jobs' Python."""

import sys
from pathlib import Path

import pytest


def stand_in_for_jobs(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ORCHARD_JOBS_PYTHON name a program, whose text has `{python}` where the interpreter's path belongs."""
    fake = folder / "python"
    fake.write_text(program.format(python=sys.executable))
    fake.chmod(0o755)
    monkeypatch.setenv("ORCHARD_JOBS_PYTHON", str(fake))
