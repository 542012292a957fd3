"""A full and a read-only disk are told as what they are, and a retry goes on. The disk is one of a namespace of the kernel's."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOM = 300_000
IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """The words that run a command with a small disk of its own at `tmp_path`."""
    mount = f"mount -t tmpfs -o size={ROOM} tmpfs {tmp_path}"
    try:
        subprocess.run([*IN_A_NAMESPACE, "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine gives no namespaces with disks of their own")
    return [*IN_A_NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh"]


@pytest.mark.parametrize("fault", ["fill_up", "make_read_only"])
def test_what_mends_a_disk_lets_the_run_go_on(small_disk: list[str], tmp_path: Path, fault: str) -> None:
    folders = [path for path in sys.path if path]
    call = f"import sys; sys.path[:0] = {folders}; from support.disk_faults import {fault}; {fault}({str(tmp_path)!r})"
    done = subprocess.run([*small_disk, sys.executable, "-c", call], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
