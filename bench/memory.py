"""Does a large batch take more driver memory than a small one?

Runs the featurize job on 140, 1,540 and 9,660 images. Five times a second it samples the resident memory of the driver's JVM and
Python, and of the workers with their decoders. Run: .venv/jobs/bin/python bench/memory.py
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featurize_rates import DATA, freeze, job_command, prepare
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.storage import Warehouse

SIZES = (140, 1540, 9660)
_SAMPLE_SECONDS = 0.2


def main() -> int:
    """Print the peak resident memory of each process of the job, a size a line; return 1 without images or without /proc."""
    paths = sorted(DATA.rglob("*.jpg"))
    if len(paths) < max(SIZES) or not Path("/proc").is_dir():
        print(f"{DATA} holds {len(paths)} images, {max(SIZES)} are wanted, and /proc is needed", file=sys.stderr)
        return 1
    backbone = backbone_named("efficientnet_lite0")
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse.at(folder)
        prepare(backbone, warehouse)
        print("images  driver JVM MiB  driver Python MiB  workers MiB (all)")
        for number, size in enumerate(SIZES, 1):
            head = freeze(backbone, warehouse, paths[:size], number)
            peaks = peak_memory(job_command(warehouse, head.digest))
            print(f"{size:>6}  {peaks['jvm']:14.0f}  {peaks['python']:17.0f}  {peaks['workers']:17.0f}")
    return 0


def peak_memory(command: list[str]) -> dict[str, float]:
    """Run a job and return the peak resident MiB of its JVM, its driver's Python and the sum of its workers."""
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | python)
    peaks = {"jvm": 0.0, "python": 0.0, "workers": 0.0}
    while job.poll() is None:
        children = _children(job.pid)
        workers = sum(_resident(pid) for pid in children if any(name in _command(pid) for name in ("pyspark", "decoder_process")))
        drivers = [pid for pid in children if "run_job.py" in _command(pid)]
        peaks["jvm"] = max(peaks["jvm"], _resident(job.pid))
        peaks["python"] = max([peaks["python"], *map(_resident, drivers)])
        peaks["workers"] = max(peaks["workers"], workers)
        time.sleep(_SAMPLE_SECONDS)
    if job.returncode:
        raise SystemExit(f"the job ended with {job.returncode}")
    return peaks


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _text(task).split():
            found += [int(child), *_children(int(child))]
    return found


def _command(pid: int) -> str:
    return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def _resident(pid: int) -> float:
    lines = _text(Path(f"/proc/{pid}/status")).splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
