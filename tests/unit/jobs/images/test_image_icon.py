"""Decoding icons: the pictures inside say what they are, whatever the directory says."""

import struct

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Rejected
from support.pictures import bad, bitmap, chunk, flat, good, picture, resized, saved

COLOUR = (200, 10, 20)


def icon(*entries: tuple[int, int, bytes]) -> bytes:
    """An icon of pictures, each with a side and bits for the directory."""
    directory, start = struct.pack("<HHH", 0, 1, len(entries)), 6 + 16 * len(entries)
    for side, bits, content in entries:
        directory += struct.pack("<BBBBHHII", side, side, 0, 0, 1, bits, len(content), start)
        start += len(content)
    return directory + b"".join(content for _, _, content in entries)


@pytest.mark.parametrize("told", [0, 8, 24, 32])
def test_the_bits_are_the_pictures_own(told: int) -> None:
    assert flat(icon((16, told, bitmap(16, 32, alpha=0)))) == [255] * 3
    assert flat(icon((16, told, bitmap(16, 24)))) == list(COLOUR)


def test_the_largest_picture_is_largest_by_its_own_header() -> None:
    for entries in ([(255, 32, bitmap(1, 24)), (16, 32, bitmap(16, 32))], [(16, 32, bitmap(16, 32)), (255, 32, bitmap(1, 24))]):
        assert good(icon(*entries)).width == 16


def test_of_equal_pictures_the_one_with_most_colours_is_taken() -> None:
    few, many = (16, 32, bitmap(16, 24)), (16, 0, bitmap(16, 32, alpha=0))
    assert flat(icon(few, many)) == flat(icon(many, few)) == [255] * 3


@pytest.mark.parametrize(
    "inner", [b"%!PS-Adobe-3.0 EPSF-3.0\n" + b"0" * 60, icon((16, 32, bitmap(16, 32))), struct.pack("<I", 64) + bytes(60)]
)
def test_an_icon_that_holds_neither_png_nor_bitmap_is_unsupported(inner: bytes) -> None:
    found = bad(icon((16, 32, inner)))
    assert found.reason == Reason.UNSUPPORTED
    assert "neither a PNG nor a bitmap" in found.message


def test_a_bitmap_in_an_icon_is_judged_by_its_size() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 300, 600, 1, 32, 0, 0, 0, 0, 0, 0)
    assert bad(icon((16, 32, header)), limit=50_000) == Rejected(Reason.OVER_PIXEL_LIMIT, "90000 pixels, the limit is 50000")


def test_a_jpeg_in_an_icon_is_unsupported() -> None:
    assert bad(icon((16, 32, saved(picture(), "JPEG")))).reason == Reason.UNSUPPORTED


def test_an_icon_holds_a_png_with_the_same_rules() -> None:
    content = saved(picture(), "PNG")
    inner = content[:33] + chunk(b"pHYs", b"?") + content[33:]
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 30, 20, 0, 0, 1, 32, len(inner), 22) + inner
    np.testing.assert_array_equal(good(icon).squares[0], resized(picture()))
    assert bad(icon[:-40]).reason == Reason.TRUNCATED
    assert bad(icon[:20]).reason == Reason.TRUNCATED


def test_an_icon_of_bitmaps_is_read() -> None:
    square = picture(32, 32)
    content = saved(square, "ICO", sizes=[(32, 32)], bitmap_format="bmp")
    np.testing.assert_array_equal(good(content).squares[0], resized(square))
