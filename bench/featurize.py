"""How fast is the featurize stage, measured against the bare backbone in the same run?

The bare backbone is two processes of one thread each over decoded images in memory: the most that two cores can do. The stage
is the whole Spark job over image files on the local disk, without Spark's start. The two take turns, so that a machine whose
speed drifts drifts for both. Run: .venv/jobs/bin/python bench/featurize.py [images] [rounds]
"""

import hashlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import manifest_path, report_path
from orchard_jobs.contract.locations import file_uri
from orchard_jobs.contract.manifest import Entry, ManifestHead, write_parts
from orchard_jobs.images.backbones import load_backbone
from orchard_jobs.images.compute import BATCH
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.local_spark import class_archive_of, submit_command
from orchard_jobs.storage import Warehouse

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ORCHARD_SHARED_DATA", ROOT.parent / "shared" / "data")) / "fruits360"
# What `make setup` makes and the launcher uses: the classes that a job's JVM loads.
ARCHIVE = class_archive_of(Path(sys.prefix))
CORES = 2
IN_MEMORY = 256


def main() -> int:
    """Print images a second of both, and their ratio, a round a line; return 1 without images."""
    count, rounds = (int(text) for text in (sys.argv[1:] + ["4000", "3"][len(sys.argv) - 1 :])[:2])
    paths = sorted(DATA.rglob("*.jpg"))[:count]
    if len(paths) < count:
        print(f"{DATA} holds {len(paths)} images, {count} are wanted: set ORCHARD_SHARED_DATA or ask for fewer", file=sys.stderr)
        return 1
    backbone = backbone_named("efficientnet_lite0")
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse.at(folder)
        prepare(backbone, warehouse)
        archive = "with" if ARCHIVE.exists() else "without"
        print(f"{count} images, {CORES} cores, batches of {BATCH}, {archive} a class archive")
        print("round  bare/s  stage/s  ratio  backbone step/s  ratio  backbone waits  start s")
        ratios = [run_round(number, backbone, warehouse, paths) for number in range(1, rounds + 1)]
        print(f"median ratio of the stage to the bare backbone: {median(ratios):.2f}")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process: {largest:.0f} MiB")
    return 0


def run_round(number: int, backbone: Backbone, warehouse: Warehouse, paths: list[Path]) -> float:
    """Run the bare backbone and then the stage, print their line, and return the stage's share of the bare one's speed."""
    bare = bare_backbone(backbone, warehouse, paths, len(paths))
    report, wall = run_stage(backbone, warehouse, paths, number)
    seconds = sum(report.seconds.values())
    stage, step = len(paths) / seconds, len(paths) / report.seconds["network"]
    waits = report.network["waiting_seconds"] / (report.network["waiting_seconds"] + report.network["busy_seconds"])
    print(
        f"{number:>5}  {bare:6.1f}  {stage:7.1f}  {stage / bare:5.2f}  {step:14.1f}  {step / bare:5.2f}"
        f"  {waits:13.1%}  {wall - seconds:7.1f}"
    )
    return stage / bare


def prepare(backbone: Backbone, warehouse: Warehouse) -> None:
    """Export the backbone, in a process of its own as a launcher does, so that TensorFlow's memory is not measured."""
    command = [sys.executable, "-m", "orchard_jobs.cli", "prepare", "--warehouse", warehouse.uri]
    subprocess.run([*command, "--backbone", json.dumps(asdict(backbone))], check=True, capture_output=True)


def bare_backbone(backbone: Backbone, warehouse: Warehouse, paths: list[Path], count: int) -> float:
    """Return images a second of the backbone alone, one process a core."""
    spawn = multiprocessing.get_context("spawn")
    barrier, seconds = spawn.Barrier(CORES), spawn.Queue()
    each = count // CORES
    workers = [
        spawn.Process(target=_run_backbone, args=(backbone, warehouse, paths[core::CORES][:IN_MEMORY], each, barrier, seconds))
        for core in range(CORES)
    ]
    for worker in workers:
        worker.start()
    slowest: float = max(seconds.get() for _ in workers)
    for worker in workers:
        worker.join()
    return each * CORES / slowest


def _run_backbone(backbone: Backbone, warehouse: Warehouse, paths: list[Path], each: int, barrier: Barrier, seconds: Any) -> None:
    loaded = load_backbone(backbone, warehouse)
    images = [decode(path.read_bytes(), 10**9, backbone.input_pixels) for path in paths]
    pixels = np.stack([image.pixels for image in images if isinstance(image, Decoded)])
    loaded(pixels[:BATCH])
    barrier.wait()
    start = time.perf_counter()
    for first in range(0, each, BATCH):
        begin = first % (len(pixels) - BATCH)
        loaded(pixels[begin : begin + BATCH])
    seconds.put(time.perf_counter() - start)


def run_stage(backbone: Backbone, warehouse: Warehouse, paths: list[Path], number: int) -> tuple[JobReport, float]:
    """Run the job once, as a launcher would; return its report and the wall seconds of the whole process."""
    head = freeze(backbone, warehouse, paths, number)
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    start = time.perf_counter()
    subprocess.run(job_command(warehouse, head.digest), check=True, capture_output=True, env=os.environ | python)
    wall = time.perf_counter() - start
    work = work_digest(head.digest, backbone.id, "featurize")
    return JobReport.from_json(warehouse.read(report_path(work))), wall


def job_command(warehouse: Warehouse, input_digest: str) -> list[str]:
    """Return the command line of a featurize job, as the local launcher submits it."""
    command = [*submit_command(Path(sys.prefix), CORES), "--driver-memory", "2g"]
    entry = ROOT / "spark_jobs" / "orchard_jobs" / "entry" / "run_job.py"
    return [*command, str(entry), "featurize", "--warehouse", warehouse.uri, "--input-digest", input_digest]


def freeze(backbone: Backbone, warehouse: Warehouse, paths: list[Path], number: int) -> ManifestHead:
    """Write the manifest of these files and return its head; the number keeps two rounds apart."""
    parts = list(write_parts(_entries(paths)))
    head = ManifestHead("bench", backbone, number, None, 10**9, len(paths), 0, {"compute": len(paths)}, (), (), ())
    head = replace(head, parts=tuple(part for part, _ in parts))
    for part, packed in parts:
        warehouse.create(manifest_path(head.digest, part.name), packed)
    warehouse.create(manifest_path(head.digest), head.to_json().encode())
    return head


def _entries(paths: list[Path]) -> Iterator[Entry]:
    for path in paths:
        content = path.read_bytes()
        etag = hashlib.md5(content).hexdigest()
        yield Entry(file_uri(str(path)), etag, len(content), "2026-01-01T00:00:00+00:00", path.parent.name, "compute", etag)


if __name__ == "__main__":
    sys.exit(main())
