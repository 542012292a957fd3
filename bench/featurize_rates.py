"""How fast is the featurize job, beside the bare backbone, a script by hand and Daft, in the same run?

The bare backbone is two processes of one thread each over decoded images in memory: the most that two cores can do. The floor
decodes, too. The job is all that a launcher starts, over image files on the local disk. All run the same ONNX file at their own
best batch, looked up first, and take turns, so that a machine whose speed drifts drifts for all. Rates are marginal where it says
so: from half as many images to twice as many, over the difference of the seconds, which leaves the start out.

Daft has an environment of its own, which `make bench` builds; without it the rest is printed.
Run: .venv/jobs/bin/python bench/featurize_rates.py [images] [rounds]
"""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import backbone_path, manifest_path, report_path
from orchard_jobs.contract.locations import file_uri
from orchard_jobs.contract.manifest import Entry, ManifestHead, write_parts
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.loaded_backbone import load_backbone
from orchard_jobs.images.vectors import squares_a_call
from orchard_jobs.local_spark import class_archive_of, submit_command
from orchard_jobs.storage import Warehouse

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ORCHARD_SHARED_DATA", ROOT.parent / "shared" / "data")) / "fruits360"
# What `make setup` makes and the launcher uses: the classes that a job's JVM loads.
ARCHIVE = class_archive_of(Path(sys.prefix))
CORES = 2
IN_MEMORY = 256
BATCHES = (1, 2, 8)
DAFT = ROOT / ".venv" / "daft" / "bin" / "python"


def main() -> int:
    """Print a round a line, then what was wanted, measured and reached; return 1 without images."""
    count, rounds = (int(text) for text in (sys.argv[1:] + ["4000", "3"][len(sys.argv) - 1 :])[:2])
    paths = sorted(DATA.rglob("*.jpg"))[: 2 * count]
    if len(paths) < 2 * count:
        print(
            f"{DATA} holds {len(paths)} images, {2 * count} are wanted: set ORCHARD_SHARED_DATA or ask for fewer", file=sys.stderr
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Warehouse.at(folder), paths, count)
        prepare(bench.backbone, bench.warehouse)
        batches = bench.best_batches()
        archive = "with" if ARCHIVE.exists() else "without"
        print(f"{count} images, {CORES} cores, {archive} a class archive; batches: {batches}, job {bench.shipped_batch}")
        found = [bench.run_round(batches) for _ in range(rounds)]
    print_verdicts(found)
    return 0


@dataclass(frozen=True)
class Round:
    """What one round measured.

    Attributes:
        rates: images a second of `bare` and `floor`, and of the job's stage without Spark's start.
        walls: seconds of `job`, `script` and `daft`, start counted, for half and for twice as many images.
        between: how many images more the larger size has.
    """

    rates: dict[str, float]
    walls: dict[str, tuple[float, float]]
    between: int

    def marginal(self, rival: str) -> float:
        """Return images a second between the two sizes."""
        smaller, larger = self.walls[rival]
        return self.between / (larger - smaller)


def print_verdicts(rounds: list[Round]) -> None:
    """Print each ratio, the median of the rounds, beside what is wanted of it."""
    ratios: list[tuple[str, str, float, list[float]]] = [
        ("stage / bare backbone", ">=", 0.84, [one.rates["stage"] / one.rates["bare"] for one in rounds]),
        ("job / floor, marginal", ">=", 0.92, [one.marginal("job") / one.rates["floor"] for one in rounds]),
    ]
    for rival in [name for name in rounds[0].walls if name != "job"]:
        ratios.append((f"job / {rival}, marginal", ">=", 1.0, [one.marginal("job") / one.marginal(rival) for one in rounds]))
    if "daft" in rounds[0].walls:
        for which, size, wanted in ((0, "half", 1.15), (1, "twice", 1.0)):
            walls = [one.walls["job"][which] / one.walls["daft"][which] for one in rounds]
            ratios.append((f"job's seconds / Daft's, {size} as many", "<=", wanted, walls))
    print("\nwhat                                     wanted  measured")
    for what, sign, wanted, measured in ratios:
        is_reached = median(measured) >= wanted if sign == ">=" else median(measured) <= wanted
        print(f"{what:38}  {sign} {wanted:5.2f}  {median(measured):8.2f}  {'reached' if is_reached else 'short'}")


@dataclass
class Bench:
    """The rivals on one warehouse and one list of files; `paths` are twice as many as `count`."""

    warehouse: Warehouse
    paths: list[Path]
    count: int
    runs: int = 0
    backbone: Backbone = field(default_factory=lambda: backbone_named("efficientnet_lite0"))

    @property
    def rivals(self) -> dict[str, Path]:
        """The Python of each rival that is there."""
        found = {"script": Path(sys.executable), "daft": DAFT}
        return {name: python for name, python in found.items() if python.exists()}

    @property
    def shipped_batch(self) -> int:
        """The batch of the job."""
        return squares_a_call(load_backbone(self.backbone, self.warehouse))

    def best_batches(self) -> dict[str, int]:
        """Return the fastest batch of the bare backbone and of each rival, of one short run each."""
        few = self.paths[: max(CORES * max(BATCHES), self.count // 8)]
        bare = max(BATCHES, key=lambda batch: self.rate("bare", few, batch))
        walls = {name: min(BATCHES, key=lambda batch: self.run_rival(name, few, batch)) for name in self.rivals}
        return {"bare": bare, **walls}

    def run_round(self, batches: dict[str, int]) -> Round:
        """Let all run once, print their line, and return what they took."""
        sizes = self.paths[: self.count // 2], self.paths
        walls = {"job": (self.run_job(sizes[0])[1], self.run_job(sizes[1])[1])}
        for name in self.rivals:
            walls[name] = (self.run_rival(name, sizes[0], batches[name]), self.run_rival(name, sizes[1], batches[name]))
        some = self.paths[: self.count]
        rates = {kind: self.rate(kind, some, batches["bare"]) for kind in ("bare", "floor")}
        rates["stage"] = self.count / sum(self.run_job(some)[0].seconds.values())
        found = Round(rates, walls, len(sizes[1]) - len(sizes[0]))
        line = [f"{kind} {rate:.1f}/s" for kind, rate in rates.items()]
        line += [f"{name} {first:.1f} s, {second:.1f} s, {found.marginal(name):.1f}/s" for name, (first, second) in walls.items()]
        print("; ".join(line), flush=True)
        return found

    def rate(self, kind: str, paths: list[Path], batch: int) -> float:
        """Return images a second, one process a core: `bare` of the backbone alone, `floor` of decoding as well."""
        run = {"bare": _run_bare, "floor": _run_floor}[kind]
        seconds: list[float] = on_each_core(
            run, [(self.backbone, self.warehouse, paths[core::CORES], batch) for core in range(CORES)]
        )
        return len(paths) / max(seconds)

    def run_rival(self, name: str, paths: list[Path], batch: int) -> float:
        """Return the wall seconds of a whole rival."""
        with tempfile.TemporaryDirectory() as folder:
            model, listed = Path(folder) / "backbone.onnx", Path(folder) / "files"
            model.write_bytes(self.warehouse.read(backbone_path(self.backbone.export_id)))
            listed.write_text("\n".join(map(str, paths)))
            program = str(Path(__file__).with_name("rivals.py"))
            command = [str(self.rivals[name]), program, name, str(model), str(listed), str(Path(folder, "output")), str(batch)]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            return time.perf_counter() - began

    def run_job(self, paths: list[Path]) -> tuple[JobReport, float]:
        """Run the job once, as a launcher would; return its report and the wall seconds of the whole process."""
        self.runs += 1
        head = freeze(self.backbone, self.warehouse, paths, self.runs)
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        began = time.perf_counter()
        subprocess.run(job_command(self.warehouse, head.digest), check=True, capture_output=True, env=os.environ | python)
        wall = time.perf_counter() - began
        work = work_digest(head.digest, self.backbone.id, "featurize")
        return JobReport.from_json(self.warehouse.read(report_path(work))), wall


def on_each_core(run: Callable[..., None], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Call a function in a process for each of the arguments; it also gets a barrier, and a queue for what is returned here."""
    spawn = multiprocessing.get_context("spawn")
    barrier, answered = spawn.Barrier(len(arguments)), spawn.Queue()
    workers = [spawn.Process(target=run, args=(*given, barrier, answered)) for given in arguments]
    for worker in workers:
        worker.start()
    answers = [answered.get() for _ in workers]
    for worker in workers:
        worker.join()
    return answers


def _run_bare(backbone: Backbone, warehouse: Warehouse, paths: list[Path], batch: int, barrier: Barrier, seconds: Any) -> None:
    loaded = load_backbone(backbone, warehouse)
    pixels = np.stack([_decoded(path, backbone) for path in paths[:IN_MEMORY]])
    loaded(pixels[:batch])
    barrier.wait()
    began = time.perf_counter()
    for first in range(0, len(paths), batch):
        begin = first % max(1, len(pixels) - batch)
        loaded(pixels[begin : begin + batch])
    seconds.put(time.perf_counter() - began)


def _run_floor(backbone: Backbone, warehouse: Warehouse, paths: list[Path], batch: int, barrier: Barrier, seconds: Any) -> None:
    loaded = load_backbone(backbone, warehouse)
    loaded(np.stack([_decoded(path, backbone) for path in paths[:batch]]))
    barrier.wait()
    began = time.perf_counter()
    for first in range(0, len(paths), batch):
        loaded(np.stack([_decoded(path, backbone) for path in paths[first : first + batch]]))
    seconds.put(time.perf_counter() - began)


def _decoded(path: Path, backbone: Backbone) -> NDArray[np.uint8]:
    found = decode(path.read_bytes(), 10**9, backbone.input_pixels)
    assert isinstance(found, Decoded)
    square: NDArray[np.uint8] = found.squares[0]
    return square


def prepare(backbone: Backbone, warehouse: Warehouse) -> None:
    """Export the backbone, in a process of its own as a launcher does, so that TensorFlow's memory is not measured."""
    command = [sys.executable, "-m", "orchard_jobs.cli", "prepare", "--warehouse", warehouse.uri]
    subprocess.run([*command, "--backbone", json.dumps(asdict(backbone))], check=True, capture_output=True)


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
