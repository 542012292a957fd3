"""A full disk is told as what it is, and a retry goes on. The disk is a small one of a namespace of the kernel's."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOM = 300_000
IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """The command that fills a disk of its own."""
    mount = f"mount -t tmpfs -o size={ROOM} tmpfs {tmp_path}"
    try:
        subprocess.run([*IN_A_NAMESPACE, "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine gives no namespaces with disks of their own")
    folders = [path for path in sys.path if path]
    call = f"import sys; sys.path[:0] = {folders}; from support.full_disk import fill_up; fill_up({str(tmp_path)!r})"
    return [*IN_A_NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", call]


def test_a_full_disk_is_told_and_what_freed_it_lets_the_run_go_on(small_disk: list[str]) -> None:
    done = subprocess.run(small_disk, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
