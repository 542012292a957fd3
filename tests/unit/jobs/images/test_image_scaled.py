"""Decoding large pictures: a JPEG is read at a smaller scale, and neither its verdict, its size nor its pixels tell."""

import io
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Decoded, Rejected, decode
from orchard_jobs.images.formats.jpeg import read_jpeg
from orchard_jobs.images.formats.picture import Limits
from PIL import Image, ImageOps
from support.pictures import LIMIT, bad, flat, good, picture, saved

EOI = b"\xff\xd9"
# So large a square that three of it do not fit into the pictures that are damaged here.
WHOLE = 501
# Of 720 x 736 pixels, squares of these sides are filled from a scale of 1, 1/2, 1/4 and 1/8.
SIDES = {1: 130, 2: 120, 4: 60, 8: 30}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("RGB", {}),
    "half the colours": ("RGB", {"subsampling": 1}),
    "whole colours": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_blocks": 7}),
    "gray": ("L", {}),
    "progressive gray": ("L", {"progressive": True}),
    "four inks": ("CMYK", {}),
    "progressive four inks": ("CMYK", {"progressive": True}),
}
DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda content, at: content[:at],
    "cut and ended": lambda content, at: content[:at] + EOI,
    "zeroed": lambda content, at: content[:at] + bytes(len(content) - at),
    "zeroed and ended": lambda content, at: content[:at] + bytes(len(content) - at - 2) + EOI,
    "zeroed within": lambda content, at: content[:at] + bytes(400) + content[at + 400 :],
    "missing within": lambda content, at: content[:at] + content[at + 400 :],
    "transferred as text": lambda content, at: content[:at] + content[at:].replace(b"\n", b"\r\n"),
}


@cache
def photo(width: int, height: int) -> Image.Image:
    """A picture with soft and hard edges and some noise, its corners unlike each other."""
    soft = picture(24, 24, seed=5).resize((width, height), Image.Resampling.BICUBIC)
    hard = picture(60, 60, seed=6).resize((width, height), Image.Resampling.NEAREST)
    noise = np.random.default_rng(7).normal(0, 4, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(Image.blend(soft, hard, 0.3)) + noise, 0, 255).astype(np.uint8))


@cache
def jpeg(width: int, height: int, kind: str = "baseline", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    mode, how = KINDS[kind]
    return saved(photo(width, height).convert(mode), "JPEG", quality=90, exif=exif, **how)


def read_whole(content: bytes, side: int) -> Image.Image:
    """The square from all pixels of a file, as Pillow reads it."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    return upright.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def assert_alike(content: bytes, side: int) -> None:
    difference = np.abs(good(content, side).squares[0].astype(int) - np.asarray(read_whole(content, side)))
    assert difference.mean() <= 1
    # A picture that is shifted by a part of a pixel shows it at an edge.
    assert max(difference[0].mean(), difference[-1].mean(), difference[:, 0].mean(), difference[:, -1].mean()) <= 2


@pytest.mark.parametrize(
    ("width", "height", "factor"),
    [
        (100, 100, 1),
        (1342, 5000, 1),
        (1343, 5000, 2),
        (5000, 1344, 2),
        (2684, 2684, 2),
        (2685, 2685, 4),
        (4032, 3024, 4),
        (3024, 4032, 4),
        (5368, 9000, 4),
        (5369, 9000, 8),
        (40_000, 30_000, 8),
        (20_000, 700, 1),
        (1500, 30_000, 2),
    ],
)
def test_the_short_side_decides_the_scale(width: int, height: int, factor: int) -> None:
    assert Limits(LIMIT, square=224).reduction(width, height) == factor
    assert Limits(LIMIT).reduction(width, height) == 1


@pytest.mark.parametrize("factor", SIDES)
def test_a_jpeg_is_read_at_that_scale(factor: int) -> None:
    read = read_jpeg(jpeg(721, 737), Limits(LIMIT, square=SIDES[factor]))
    assert read.image.size == (-(-721 // factor), -(-737 // factor))
    assert read.size == (721, 737)


@pytest.mark.parametrize(("kind", "reduction"), [("baseline", 4), ("whole colours", 4), ("half the colours", 2), ("gray", 4)])
def test_colours_that_are_coarse_one_way_count_as_so_much_smaller(kind: str, reduction: int) -> None:
    assert read_jpeg(jpeg(720, 736, kind), Limits(LIMIT, square=SIDES[4])).reduction == reduction


@pytest.mark.parametrize("factor", SIDES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_square_is_like_that_of_the_whole(kind: str, factor: int) -> None:
    assert_alike(jpeg(720, 736, kind), SIDES[factor])


@pytest.mark.parametrize("size", [(721, 737), (727, 743), (725, 2001), (3001, 721)])
def test_odd_sides_and_panoramas_are_like_the_whole(size: tuple[int, int]) -> None:
    for side in SIDES.values():
        assert_alike(jpeg(*size), side)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_like_the_whole(orientation: int) -> None:
    content = jpeg(721, 969, orientation=orientation)
    assert_alike(content, SIDES[8])
    found = good(content, SIDES[8])
    assert (found.width, found.height) == ((721, 969) if orientation < 5 else (969, 721))


def test_a_burst_of_pictures_is_like_its_first() -> None:
    first = photo(721, 737)
    content = saved(first, "MPO", save_all=True, append_images=[first.rotate(90)], quality=90)
    assert_alike(content, SIDES[8])
    assert (good(content, SIDES[8]).width, good(content, SIDES[8]).height) == (721, 737)


def test_the_pixel_limit_is_of_the_whole_picture() -> None:
    content = jpeg(721, 737)
    assert isinstance(decode(content, 721 * 737, SIDES[8]), Decoded)
    assert bad(content, 721 * 737 - 1).reason == Reason.OVER_PIXEL_LIMIT


def verdict(content: bytes, side: int) -> str | Rejected:
    found = decode(content, LIMIT, side)
    return "good" if isinstance(found, Decoded) else found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["baseline", "progressive", "gray", "four inks"])
def test_a_damaged_photo_has_the_verdict_of_the_whole(kind: str, damage: str) -> None:
    content = jpeg(2001, 1501, kind)
    first = content.index(b"\xff\xda") + 20
    for at in (first, (first + len(content)) // 2):
        damaged = DAMAGES[damage](content, at)
        assert verdict(damaged, 224) == verdict(damaged, WHOLE)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts", "four inks"])
def test_flipped_bits_have_the_verdict_of_the_whole(kind: str) -> None:
    content = jpeg(361, 369, kind)
    random = np.random.default_rng(8)
    for number in range(40):
        damaged = bytearray(content)
        damaged[int(random.integers(2, len(content)))] ^= 1 << number % 8
        whole = verdict(bytes(damaged), WHOLE)
        assert [verdict(bytes(damaged), side) for side in (15, 30, 60)] == [whole] * 3


def lossless(width: int, height: int) -> bytes:
    """A lossless JPEG of one gray: each pixel is as predicted, which takes one zero bit."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    frame = segment(0xC3, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
    table = segment(0xC4, bytes([0, 1, *[0] * 15, 0]))
    return b"\xff\xd8" + frame + table + segment(0xDA, bytes([1, 1, 0, 1, 0, 0])) + bytes(width * height // 8) + EOI


def test_a_lossless_jpeg_is_read_whole() -> None:
    assert flat(lossless(2000, 1500)) == [128] * 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "JPEG"])
def test_what_is_read_whole_is_reduced_in_steps(kind: str) -> None:
    content = saved(photo(1200, 441), kind)
    whole = Image.open(io.BytesIO(content))
    in_steps = whole.resize((74, 74), Image.Resampling.BICUBIC, reducing_gap=3)
    np.testing.assert_array_equal(good(content, 74).squares[0], np.asarray(in_steps))
    assert_alike(content, 74)


def test_a_jpeg_within_a_tiff_is_read_whole() -> None:
    content = saved(photo(1200, 1100), "TIFF", compression="jpeg", quality=90)
    assert_alike(content, SIDES[8])
