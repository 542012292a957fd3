"""Sample images: seeded drawings that look like different fruit, in daily batches, with the oddities that real uploads have.

The same seed gives the same bytes. It knows nothing of S3 or Airflow.
"""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

FIRST_BATCH = date(2026, 1, 5)
BATCHES = 3
IMAGES_PER_LABEL = 8
PIXELS = 100
_CANVAS = 200  # drawn at twice the size, so that edges are smooth after the reduction

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fruit:
    """How one kind of fruit looks.

    Attributes:
        colours: base colours; an image takes one and varies it.
        outline: draws the fruit's body, white on black, on a mask.
        texture: gives brightness factors over the canvas.
        details: draws what lies on the body (a stalk, seeds).
    """

    colours: tuple[Colour, ...]
    outline: Callable[[ImageDraw.ImageDraw], None]
    texture: Callable[[np.random.Generator], Floats]
    details: Callable[[ImageDraw.ImageDraw, np.random.Generator], None] = lambda draw, random: None


def _ellipse(width: int, height: int) -> Callable[[ImageDraw.ImageDraw], None]:
    box = (100 - width // 2, 100 - height // 2, 100 + width // 2, 100 + height // 2)
    return lambda draw: draw.ellipse(box, fill=255)


def _polygon(*points: tuple[float, float]) -> Callable[[ImageDraw.ImageDraw], None]:
    return lambda draw: draw.polygon(points, fill=255)


def _crescent(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((20, 20, 180, 180), fill=255)
    draw.ellipse((10, -25, 190, 130), fill=0)


def _bunch(draw: ImageDraw.ImageDraw) -> None:
    for row, count in enumerate((4, 4, 3, 2, 1)):
        for column in range(count):
            x, y = 100 + (column - (count - 1) / 2) * 34, 40 + row * 30
            draw.ellipse((x - 19, y - 19, x + 19, y + 19), fill=255)


def _pear(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((45, 80, 155, 185), fill=255)
    draw.ellipse((68, 20, 132, 120), fill=255)


def _speckles(spread: float, grain: int) -> Callable[[np.random.Generator], Floats]:
    def texture(random: np.random.Generator) -> Floats:
        coarse = random.normal(1.0, spread, (_CANVAS // grain, _CANVAS // grain))
        return np.kron(coarse, np.ones((grain, grain))).astype(np.float64)

    return texture


def _stripes(random: np.random.Generator) -> Floats:
    x = np.arange(_CANVAS) / _CANVAS
    wave = 0.75 + 0.35 * np.sign(np.sin(x * 40 + random.uniform(0, 6)))
    return np.tile(wave, (_CANVAS, 1))


def _bubbles(random: np.random.Generator) -> Floats:
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS]
    wave: Floats = 0.8 + 0.3 * np.sin(x / 5.4 + random.uniform(0, 6)) * np.sin(y / 4.8)
    return wave


def _stalk(colour: Colour) -> Callable[[ImageDraw.ImageDraw, np.random.Generator], None]:
    def details(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
        draw.line((100, 45, 100 + float(random.uniform(-18, 18)), 12), fill=colour, width=int(random.integers(5, 9)))

    return details


def _seeds(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    for x, y in random.uniform((70, 55), (130, 130), (35, 2)):
        draw.ellipse((x - 2, y - 3, x + 2, y + 3), fill=(250, 220, 120))
    draw.polygon([(60, 40), (80, 22), (100, 38), (120, 22), (140, 40), (100, 56)], fill=(60, 140, 40))


def _core(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    draw.ellipse((85, 78, 115, 122), fill=(230, 235, 190))
    for angle in np.linspace(0, 2 * np.pi, 22) + random.uniform(0, 1):
        x, y = 100 + 32 * np.cos(angle), 100 + 36 * np.sin(angle)
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(20, 20, 15))


_LEMON = _polygon((8, 100), (50, 50), (150, 50), (192, 100), (150, 150), (50, 150))
_STRAWBERRY = _polygon((40, 45), (160, 45), (140, 120), (100, 180), (60, 120))
FRUITS = {
    "Apple Red": Fruit(((190, 20, 30), (160, 30, 40)), _ellipse(160, 150), _speckles(0.05, 20), _stalk((90, 60, 30))),
    "Banana": Fruit(((240, 210, 50), (225, 200, 80)), _crescent, _speckles(0.06, 10)),
    "Grape Blue": Fruit(((70, 50, 120), (50, 40, 95)), _bunch, _bubbles, _stalk((110, 120, 60))),
    "Kiwi": Fruit(((130, 180, 60), (115, 165, 50)), _ellipse(140, 160), _speckles(0.08, 4), _core),
    "Lemon": Fruit(((245, 225, 70), (235, 220, 40)), _LEMON, _speckles(0.04, 5)),
    "Pear": Fruit(((175, 190, 70), (200, 180, 80)), _pear, _speckles(0.1, 8), _stalk((80, 55, 30))),
    "Strawberry": Fruit(((205, 25, 45), (220, 50, 60)), _STRAWBERRY, _speckles(0.05, 10), _seeds),
    "Watermelon": Fruit(((60, 130, 60), (40, 110, 50)), _ellipse(185, 165), _stripes),
}


def draw_image(label: str, number: int = 0, seed: int = 0, size: tuple[int, int] = (PIXELS, PIXELS)) -> Image.Image:
    """Return the picture of one fruit as RGB on white: `number` varies colour, light, rotation and scale."""
    fruit = FRUITS[label]
    random = np.random.default_rng([seed, crc32(label.encode()), number])
    mask = Image.new("L", (_CANVAS, _CANVAS))
    fruit.outline(ImageDraw.Draw(mask))
    colour = np.array(fruit.colours[random.integers(len(fruit.colours))]) * random.uniform(0.9, 1.1, 3)
    body = colour * fruit.texture(random)[:, :, None] * _light(random)[:, :, None]
    picture = Image.fromarray(np.clip(body, 0, 255).astype(np.uint8))
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=mask.filter(ImageFilter.GaussianBlur(1)))
    fruit.details(ImageDraw.Draw(white), random)
    angle, scale = random.uniform(0, 360), random.uniform(0.75, 1.0)
    turned = white.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
    small = turned.resize((max(1, int(size[0] * scale)), max(1, int(size[1] * scale))), Image.Resampling.LANCZOS)
    result = Image.new("RGB", size, "white")
    result.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
    return result


def _light(random: np.random.Generator) -> Floats:
    """Return brightness factors of a round body lit from one side, with a highlight."""
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS] / _CANVAS - 0.5
    to_x, to_y = random.uniform(-0.25, 0.25, 2)
    distance = (x - to_x) ** 2 + (y - to_y) ** 2
    factors: Floats = random.uniform(0.85, 1.15) * (1.1 - 1.1 * distance + 0.5 * np.exp(-distance * 60))
    return factors


def image_bytes(
    label: str = "Apple Red", number: int = 0, seed: int = 0, size: tuple[int, int] = (PIXELS, PIXELS), mode: str = "RGB"
) -> bytes:
    """Return one drawn fruit as the bytes of a JPEG file in a colour mode (`RGB`, `L`, `CMYK`)."""
    buffer = io.BytesIO()
    draw_image(label, number, seed, size).convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def batch_files(index: int, seed: int = 0) -> dict[str, bytes]:
    """Return one day's files by `<label>/<file>`: every fourth is not 100 x 100, and each day has oddities of its own."""
    files = {}
    for label in FRUITS:
        for number in range(index * IMAGES_PER_LABEL, (index + 1) * IMAGES_PER_LABEL):
            size = (PIXELS, PIXELS) if number % 4 else (80 + 10 * (len(label) % 12), 120 + 5 * (number % 7))
            files[f"{label}/{number}_100.jpg"] = image_bytes(label, number, seed, size)
    return files | _oddities(files, index, seed)


def _oddities(files: dict[str, bytes], index: int, seed: int) -> dict[str, bytes]:
    first = next(iter(files.values()))
    return (
        {"Banana/broken.jpg": first[: len(first) // 2], "Pear/duplicate of an apple.jpg": first},
        {"Kiwi/cmyk.jpg": image_bytes("Kiwi", 999, seed, mode="CMYK")},
        {"Lemon/one pixel.jpg": image_bytes("Lemon", 999, seed, (1, 1))},
    )[index]


def draw_samples(folder: Path, seed: int = 0) -> list[str]:
    """Write `<folder>/<YYYY-MM-DD>/<label>/<file>` for all batches and return their names; a folder that is there stays.

    The folder appears whole or not at all, so an interrupted drawing is begun again.
    """
    names = [(FIRST_BATCH + timedelta(days=index)).isoformat() for index in range(BATCHES)]
    if folder.exists():
        return names
    fresh = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    for index, name in enumerate(names):
        for path, content in batch_files(index, seed).items():
            target = fresh / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    os.replace(fresh, folder)
    return names
