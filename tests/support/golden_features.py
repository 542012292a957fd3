"""Golden features of the backbones that need no download, each from its reference engine. Rewrite them by hand, never in CI:

PYTHONPATH=spark_jobs:tests .venv/jobs/bin/python -m support.golden_features efficientnet_lite0 ...
"""

import json
import sys

import numpy as np
from numpy.typing import NDArray

from support.repository import ROOT

ENGINES = {"efficientnet_lite0": "tensorflow", "efficientnet_lite2": "tensorflow", "color_histogram": "numpy"}
GOLDEN = {name: ROOT / "tests" / "golden" / f"{name}.json" for name in ENGINES}
LARGEST = 12


def drawn_pixels(side: int = 224) -> dict[str, NDArray[np.uint8]]:
    """Return uint8 [side, side, 3] by name, drawn with integers alone, so that every machine draws the same."""
    y, x = np.mgrid[0:side, 0:side]
    ring = ((x - 112) ** 2 + (y - 112) ** 2) // 160
    pictures = {
        "slope": (x, y, (x + y) // 2),
        "checks": ((x // 16 + y // 16) % 2 * 255, (x // 32 + y // 8) % 2 * 200, (x // 8) % 2 * 90),
        "disc": (np.where(ring < 40, 220, 30), np.where(ring < 40, 40 + ring, 90), np.where(ring < 40, 20, 160)),
        "noise": tuple((x * x * 31 + y * y * 17 + x * y * k) * 2654435761 // 65536 % 256 for k in (3, 5, 7)),
    }
    return {name: np.stack(channels, axis=-1).astype(np.uint8) for name, channels in pictures.items()}


def main() -> None:
    """Compute the features and rewrite the golden files of the backbones that the command line names."""
    from orchard_jobs.contract.backbones import backbone_named
    from orchard_jobs.images.loaded_backbone import load_backbone
    from orchard_jobs.storage import Warehouse

    for name in sys.argv[1:]:
        backbone = load_backbone(backbone_named(name, ENGINES[name]), Warehouse.at("/nowhere"))
        pictures = drawn_pixels(backbone.input_pixels)
        features = backbone(np.stack(list(pictures.values())))
        golden = {picture: told(vector) for picture, vector in zip(pictures, features, strict=True)}
        GOLDEN[name].write_text(json.dumps(golden, indent=1) + "\n")


def told(vector: NDArray[np.float32]) -> dict[str, object]:
    """Return what of a vector is kept: its largest values, and the sum of all."""
    return {
        "largest": float(np.abs(vector).max()),
        "sum": float(vector.astype(np.float64).sum()),
        "at": {str(position): float(vector[position]) for position in np.sort(np.argsort(-vector)[:LARGEST])},
    }


if __name__ == "__main__":
    main()
