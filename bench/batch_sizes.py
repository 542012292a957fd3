"""How many images at once does a backbone like on a CPU?

Two processes, one a core, run the exported backbone on drawn pixels. The sizes take turns within a round, and CPU time is
counted, so that a machine that others use does little harm. The weights of ResNet50 are random, which changes no time. Each line
also tells whether the vectors are those of the largest batch, to the bit.

Run: .venv/jobs/bin/python bench/batch_sizes.py [rounds]
"""

import hashlib
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from featurize_rates import CORES, on_each_core, prepare
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.images.loaded_backbone import load_backbone
from orchard_jobs.images.vectors import MOST_SQUARES_A_CALL, squares_a_call
from orchard_jobs.storage import Warehouse

SIZES = (1, 2, 4, MOST_SQUARES_A_CALL, 16, 32)
EACH = 32
_DRAW_WEIGHTS = """
import sys, keras
keras.utils.set_random_seed(0)
keras.applications.ResNet50(include_top=False, weights=None, pooling="avg").save_weights(sys.argv[1])
"""


def main() -> int:
    """Print CPU-ms an image by batch size, a backbone after the other."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse.at(folder)
        for backbone in (backbone_named("efficientnet_lite0"), drawn_resnet50(Path(folder))):
            prepare(backbone, warehouse)
            print_sizes(backbone, warehouse, rounds)
    return 0


def drawn_resnet50(folder: Path) -> Backbone:
    """Return a ResNet50 of random weights, which lie in a folder."""
    path = folder / "drawn.weights.h5"
    subprocess.run([sys.executable, "-c", _DRAW_WEIGHTS, str(path)], check=True, capture_output=True)
    return backbone_named("resnet50", "onnx", str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def print_sizes(backbone: Backbone, warehouse: Warehouse, rounds: int) -> None:
    """Print a line a size: its CPU-ms, and how many of the largest's it takes, the median of all rounds."""
    found, are_equal = measure(backbone, warehouse, rounds)
    shipped = squares_a_call(load_backbone(backbone, warehouse))
    print(f"{backbone.name}: batch  CPU-ms an image  to a batch of {MOST_SQUARES_A_CALL}  same bits")
    for size in SIZES:
        ratio = median(one / other for one, other in zip(found[size], found[MOST_SQUARES_A_CALL], strict=True))
        mark = "  as shipped" if size == shipped else ""
        print(f"{size:>{len(backbone.name) + 7}}  {median(found[size]):15.2f}  {ratio:15.3f}  {are_equal[size]!s:>9}{mark}")


def measure(backbone: Backbone, warehouse: Warehouse, rounds: int) -> tuple[dict[int, list[float]], dict[int, bool]]:
    """Return CPU-ms by size, of each round and process, and whether the vectors are those of the largest batch."""
    answers = on_each_core(_run_sizes, [(backbone, warehouse, rounds)] * CORES)
    return {size: [ms for found, _ in answers for ms in found[size]] for size in SIZES}, answers[0][1]


def _run_sizes(backbone: Backbone, warehouse: Warehouse, rounds: int, barrier: Barrier, answered: Any) -> None:
    loaded = load_backbone(backbone, warehouse)
    side = backbone.input_pixels
    pixels = np.random.default_rng(0).integers(0, 256, (EACH, side, side, 3), dtype=np.uint8)
    vectors = {size: np.concatenate([loaded(pixels[first : first + size]) for first in range(0, EACH, size)]) for size in SIZES}
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            barrier.wait()
            began = time.process_time()
            for first in range(0, EACH, size):
                loaded(pixels[first : first + size])
            found[size].append(1e3 * (time.process_time() - began) / EACH)
    answered.put((found, {size: np.array_equal(vectors[size], vectors[max(SIZES)]) for size in SIZES}))


if __name__ == "__main__":
    sys.exit(main())
