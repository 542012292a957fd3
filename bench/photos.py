"""What does it cost to decode a photo of 12 megapixels and to fill the backbone's square from it, and what do the features lose?

No camera's photos are at hand, so they are made of shop photos: mosaics of many at their own size, and single ones enlarged,
with noise like a sensor's. Each is stored as JPEGs of about 1 MB and 3 MB (4:2:0), as a progressive JPEG, a PNG, a WebP and two
HEICs. One HEIC has tiles of 512 pixels, as phones write them, the other one piece. `whole` has every pixel decoded and resized by
the bicubic filter alone; `as shipped` is the product's own decoding. Both take turns, and each figure is the median of three
rounds. Memory is what a decoding takes above what the process had before.

The features of N pictures of 8 megapixels and more (odd sides, panoramas, progressive, CMYK, gray, 4:2:2, PNG) are compared with
those of the whole picture. The measure is the cosine, after the mean of all is subtracted. Run: .venv/jobs/bin/python
bench/photos.py [N]
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pillow_heif
from featurize_rates import DATA, prepare
from numpy.typing import NDArray
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.formats.heic import read_heic
from orchard_jobs.images.formats.jpeg import read_jpeg
from orchard_jobs.images.formats.picture import Limits
from orchard_jobs.images.formats.png import read_png
from orchard_jobs.images.formats.signatures import Format, format_of
from orchard_jobs.images.formats.stock import read_stock
from orchard_jobs.images.loaded_backbone import load_backbone
from orchard_jobs.storage import Warehouse
from PIL import Image

SHOP_PHOTOS = DATA.parent / "grocery_store"
SIDE, LIMIT, ROUNDS = 224, 10**9, 3
WIDTH, HEIGHT = 4032, 3024
LEAST_COSINE = 0.999
Square = NDArray[np.uint8]
STORED: dict[str, dict[str, Any]] = {
    "JPEG, about 1 MB": {"format": "JPEG", "megabytes": 1},
    "JPEG, about 3 MB": {"format": "JPEG", "megabytes": 3},
    "progressive, about 1 MB": {"format": "JPEG", "megabytes": 1, "progressive": True},
    "progressive, about 3 MB": {"format": "JPEG", "megabytes": 3, "progressive": True},
    "PNG": {"format": "PNG", "compress_level": 1},
    "WebP": {"format": "WEBP", "quality": 80, "method": 1},
    "HEIC, tiles": {"format": "HEIF", "quality": 60, "tile_size": 512, "enc_params": {"preset": "ultrafast"}},
    "HEIC, one piece": {"format": "HEIF", "quality": 60, "enc_params": {"preset": "ultrafast"}},
}
WANTED_MS = {"JPEG, about 1 MB": 40, "JPEG, about 3 MB": 70}
COMPARED: list[tuple[str, dict[str, Any]]] = [
    ("RGB", {"format": "JPEG", "quality": 85}),
    ("RGB", {"format": "JPEG", "quality": 60, "progressive": True}),
    ("CMYK", {"format": "JPEG", "quality": 80}),
    ("RGB", {"format": "JPEG", "quality": 92, "subsampling": "4:2:2"}),
    ("L", {"format": "JPEG", "quality": 80}),
    ("RGB", {"format": "PNG", "compress_level": 1}),
    ("RGB", {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"}),
]


def main() -> int:
    """Print CPU-ms and peak memory a kind of file, then the cosines; return 1 without photos or without Linux."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 42
    paths = sorted(SHOP_PHOTOS.rglob("*.jpg"))
    if not paths or not Path("/proc/self/status").exists():
        print(f"{SHOP_PHOTOS} holds {len(paths)} photos; some are wanted, and Linux's /proc is needed", file=sys.stderr)
        return 1
    pillow_heif.register_heif_opener()
    photos = [Image.open(path).convert("RGB") for path in paths[:: max(1, len(paths) // 100)]]
    verdicts = [*measure_cost(photos), measure_features(photos, count)]
    print("\nwhat                                     wanted  measured")
    for what, wanted, measured, is_reached in verdicts:
        print(f"{what:38}  {wanted:>8}  {measured:>8}  {'reached' if is_reached else 'short'}")
    return 0


def measure_cost(photos: list[Image.Image]) -> list[tuple[str, str, str, bool]]:
    """Print a line a kind of file, and return what was wanted of some."""
    random = np.random.default_rng(0)
    pictures = [mosaic(photos, WIDTH, HEIGHT, random), enlarged(photos, WIDTH, HEIGHT, random)]
    print(f"{WIDTH} x {HEIGHT} pixels            MB  whole CPU-ms  as shipped  ratio  whole MiB  as shipped")
    verdicts = []
    # What one decoding frees, the allocator keeps for the next: each has a process of its own.
    fresh = ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)
    for name, how in STORED.items():
        files = [stored(picture, **how) for picture in pictures]
        whole, shipped, ratio = cpu_milliseconds(files)
        memory = [fresh.submit(peak_mebibytes, run, files[0]).result() for run in (read_whole, as_shipped)]
        size = mean(map(len, files)) / 1e6
        line = f"{name:24}  {size:8.1f}  {whole:12.0f}  {shipped:10.0f}  {ratio:5.2f}  {memory[0]:9.0f}  {memory[1]:10.0f}"
        print(line, flush=True)
        if wanted := WANTED_MS.get(name):
            verdicts.append((f"{name}: CPU-ms", f"<= {wanted}", f"{shipped:.0f}", shipped <= wanted))
    fresh.shutdown()
    return verdicts


def cpu_milliseconds(files: list[bytes]) -> tuple[float, float, float]:
    """Return the medians of three rounds: a file read whole, one as shipped, and the ratio of the second to the first."""
    rounds = [[mean(clock(run, file) for file in files) for run in (read_whole, as_shipped)] for _ in range(ROUNDS)]
    whole, shipped = zip(*rounds, strict=True)
    return median(whole), median(shipped), median(second / first for first, second in rounds)


def clock(run: Callable[[bytes], Square], file: bytes) -> float:
    """Return the CPU-ms of one run."""
    began = time.process_time()
    run(file)
    return 1e3 * (time.process_time() - began)


def peak_mebibytes(run: Callable[[bytes], Square], file: bytes) -> float:
    """Return what the first run of a process takes at its peak above what was resident before it."""
    before = resident("VmRSS")
    run(file)
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """Return a line of this process's status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def read_whole(file: bytes) -> Square:
    """Return the square from every pixel of a file without orientation, transparency and profile."""
    kind, limits = format_of(file), Limits(LIMIT)
    readers = {Format.JPEG: read_jpeg, Format.PNG: read_png, Format.HEIC: read_heic}
    picture = readers[kind](file, limits) if kind in readers else read_stock(file, kind, limits)
    return np.asarray(picture.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB"))


def as_shipped(file: bytes) -> Square:
    """Return the square as the product fills it."""
    found = decode(file, LIMIT, SIDE)
    assert isinstance(found, Decoded)
    square: Square = found.squares[0]
    return square


def measure_features(photos: list[Image.Image], count: int) -> tuple[str, str, str, bool]:
    """Print what the features of so many pictures lose, and return the worst of them."""
    backbone = backbone_named("efficientnet_lite0")
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse.at(folder)
        prepare(backbone, warehouse)
        loaded = load_backbone(backbone, warehouse)
    features, differences = [], []
    for file in many_files(photos, count):
        squares = np.stack([read_whole(file), as_shipped(file)])
        differences.append(float(np.abs(squares[0].astype(int) - squares[1]).mean()))
        features.append(loaded(squares).astype(np.float64))
    centred = np.stack(features) - np.stack(features)[:, 0].mean(0)
    lengths = np.linalg.norm(centred, axis=2)
    cosines = (centred[:, 0] * centred[:, 1]).sum(1) / (lengths[:, 0] * lengths[:, 1])
    for number, (mode, how) in enumerate(COMPARED):
        some = cosines[number :: len(COMPARED)]
        name = f"{mode} {' '.join(f'{key}={value}' for key, value in how.items())}"
        if len(some):
            print(f"{name:48}  {len(some):5} pictures, least cosine {some.min():.5f}")
    below = int((cosines < LEAST_COSINE).sum())
    print(
        f"{count} pictures: cosine at least {cosines.min():.5f}, median {np.median(cosines):.5f}, {below} below {LEAST_COSINE}; "
        f"pixels differ by {mean(differences):.2f} of 255 on average, by {max(differences):.2f} in the worst picture"
    )
    return f"least cosine of {count} pictures", f">= {LEAST_COSINE}", f"{cosines.min():.5f}", bool(cosines.min() >= LEAST_COSINE)


def many_files(photos: list[Image.Image], count: int) -> Iterator[bytes]:
    """Yield files of 8 megapixels and more in turn: mosaics and enlargements; every fifth is a panorama."""
    random = np.random.default_rng(1)
    for number in range(count):
        mode, how = COMPARED[number % len(COMPARED)]
        short = int(random.integers(1000, 1400) if number % 5 == 4 else random.integers(2600, 3100))
        long = 8_000_000 // short + int(random.integers(1, 400))
        width, height = (long, short) if random.integers(2) else (short, long)
        make = mosaic if number % 2 else enlarged
        yield stored(make(photos, width, height, random).convert(mode), **how)


def mosaic(photos: list[Image.Image], width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Return a picture of photos side by side, each at its own size."""
    picture, left, top, rows = Image.new("RGB", (width, height)), 0, 0, 0
    while top < height:
        photo = photos[random.integers(len(photos))]
        picture.paste(photo, (left, top))
        left, rows = left + photo.width, max(rows, photo.height)
        if left >= width:
            left, top, rows = 0, top + rows, 0
    return picture


def enlarged(photos: list[Image.Image], width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Return one photo enlarged, with noise that grows with the root of the light, as a sensor's does."""
    photo = photos[random.integers(len(photos))].resize((width, height), Image.Resampling.BICUBIC)
    light = np.asarray(photo, np.float32)
    noise = random.standard_normal(light.shape, np.float32) * (1 + np.sqrt(light) / 4)
    return Image.fromarray(np.clip(light + noise, 0, 255).astype(np.uint8))


def stored(picture: Image.Image, megabytes: float | None = None, **how: Any) -> bytes:
    """Return a file; of so many megabytes, as near as the quality can bring it."""
    if megabytes is None:
        file = io.BytesIO()
        picture.save(file, **how)
        return file.getvalue()
    low, high = 1, 98
    while low < high:
        quality = (low + high + 1) // 2
        fits = len(stored(picture, quality=quality, **how)) <= megabytes * 1e6
        low, high = (quality, high) if fits else (low, quality - 1)
    return stored(picture, quality=low, **how)


if __name__ == "__main__":
    sys.exit(main())
