"""Decoding PNG: colour keys of every depth, and metadata that decides nothing."""

import struct
import zlib

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import decode
from support.pictures import LIMIT, bad, chunk, flat, good, picture, png, resized, saved

WHITE = [255, 255, 255]
HEADER_END = 33


def with_chunk(extra: bytes) -> bytes:
    """A picture with bytes between its header and its pixels."""
    content = saved(picture(), "PNG")
    return content[:HEADER_END] + extra + content[HEADER_END:]


def packed(values: list[int], bits: int) -> bytes:
    """One row of values."""
    digits = "".join(f"{value:0{bits}b}" for value in values)
    return int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_colour_key_of_gray(bits: int) -> None:
    key, other = (1 << bits) - 2, (1 << bits) - 1
    rows = packed([key] * 8, bits) * 4
    assert flat(png(8, 4, bits, 0, rows, chunk(b"tRNS", struct.pack(">H", key)))) == WHITE
    shade = key >> 8 if bits == 16 else key * 255 // ((1 << bits) - 1)
    assert flat(png(8, 4, bits, 0, rows, chunk(b"tRNS", struct.pack(">H", other)))) == [shade] * 3


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_key_of_colours(bits: int) -> None:
    colour = (0x12, 0x56, 0x9A) if bits == 8 else (0x1234, 0x5678, 0x9ABC)
    rows = b"".join(packed([one], bits) for one in colour) * 6
    assert flat(png(3, 2, bits, 2, rows, chunk(b"tRNS", struct.pack(">HHH", *colour)))) == WHITE
    near = (*colour[:2], colour[2] + 1)
    assert flat(png(3, 2, bits, 2, rows, chunk(b"tRNS", struct.pack(">HHH", *near)))) == [0x12, 0x56, 0x9A]


def test_a_colour_key_hides_its_pixels_alone() -> None:
    key, other = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC), struct.pack(">3H", 0x1234, 0x5678, 0x9ABD)
    pixels = good(png(16, 8, 16, 2, (key * 8 + other * 8) * 8, chunk(b"tRNS", key))).squares[0]
    assert pixels[0, 0].tolist() == WHITE
    assert pixels[0, -1].tolist() == [0x12, 0x56, 0x9A]


def test_a_key_uses_the_bits_of_its_depth_alone() -> None:
    assert flat(png(4, 2, 2, 0, packed([1] * 4, 2) * 2, chunk(b"tRNS", b"\xff\xfd"))) == WHITE


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0"])
def test_a_key_of_another_length_is_none(body: bytes) -> None:
    assert flat(png(4, 2, 8, 0, bytes([9] * 8), chunk(b"tRNS", body))) == [9] * 3


@pytest.mark.parametrize(
    "name", [b"iCCP", b"iTXt", b"zTXt", b"tEXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"eXIf", b"tIME", b"acTL", b"vpAg"]
)
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"x" * 5000, bytes(9), b"Name\0\x07garbage", b"Name\0\0" + zlib.compress(bytes(3_000_000))]
)
def test_metadata_of_any_size_and_sense_decides_nothing(name: bytes, body: bytes) -> None:
    np.testing.assert_array_equal(good(with_chunk(chunk(name, body))).squares[0], resized(picture()))


@pytest.mark.parametrize("name", [b"iTXt", b"pHYs", b"eXIf"])
def test_damaged_metadata_decides_nothing(name: bytes) -> None:
    whole = chunk(name, b"some words " * 9)
    damaged = [
        whole[:-1] + b"?",
        whole[:20] + b"?" + whole[21:],
        struct.pack(">I", 2**31) + whole[4:],
        struct.pack(">I", 5) + whole[4:],
        struct.pack(">I", 150) + whole[4:],
        whole[:4] + b"\0\1\2\3" + whole[8:],
        whole[:30],
    ]
    for extra in damaged:
        np.testing.assert_array_equal(good(with_chunk(extra)).squares[0], resized(picture()))


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_damage_to_what_the_pixels_need_is_truncated(name: bytes) -> None:
    palette = picture().quantize(9)
    content = bytearray(saved(palette, "PNG", transparency=3))
    content[content.index(name) + 6] ^= 1
    assert bad(bytes(content)).reason == Reason.TRUNCATED


@pytest.mark.parametrize("lost", [(b"text", b""), (b"IDAT", b""), (b"text", chunk(b"tRNS", b""))])
def test_damaged_lengths_are_not_walked_over_again_and_again(monkeypatch: pytest.MonkeyPatch, lost: tuple[bytes, bytes]) -> None:
    checked, crc32 = [0], zlib.crc32

    def counting(data: bytes) -> int:
        checked[0] += len(data)
        return crc32(data)

    # Each of them seems to hold all that follows.
    name, after = lost
    size, count = 8 + len(after), 2_000
    lengths = (max(size * left - 20, 0).to_bytes(4, "big") for left in range(count, 0, -1))
    content = with_chunk(b"\0\0\0\0text" + b"".join(length + name + after for length in lengths))
    monkeypatch.setattr("orchard_jobs.images.formats.png.zlib.crc32", counting)
    decode(content, LIMIT, 224)
    assert checked[0] <= 8 * len(content)


def test_the_pixels_are_whole_without_the_end_chunk() -> None:
    content = saved(picture(), "PNG")
    np.testing.assert_array_equal(good(content[:-12]).squares[0], resized(picture()))
    assert bad(content[:-13]).reason == Reason.TRUNCATED


@pytest.mark.parametrize("line_end", [(b"\n", b"\r\n"), (b"\r\n", b"\n")])
def test_a_transfer_as_text_is_truncated(line_end: tuple[bytes, bytes]) -> None:
    assert bad(saved(picture(), "PNG").replace(*line_end)).reason == Reason.TRUNCATED


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_whole_stream_that_lacks_rows_is_truncated(interlaced: bool) -> None:
    # Of 4 x 4 pixels Adam7's passes 2 and 3 have none, and its last two have two rows each.
    lengths = [1, 1, 2, 2, 2, 4, 4] if interlaced else [4] * 4
    lines = [b"\0" + bytes([200, 10, 20] * length) for length in lengths]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, interlaced))
    head = b"\x89PNG\r\n\x1a\n" + header
    whole, short = (head + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"") for rows in (lines, lines[:-1]))
    assert flat(whole) == [200, 10, 20]
    assert bad(short).reason == Reason.TRUNCATED


@pytest.mark.parametrize(("bits", "colour", "samples"), [(1, 0, 1), (2, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3)])
def test_a_black_picture_lacks_nothing(bits: int, colour: int, samples: int) -> None:
    row = bytes(-(-5 * samples * bits // 8))
    assert flat(png(5, 3, bits, colour, row * 3)) == [0, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_interlaced_pictures_of_16_bits(mode: str) -> None:
    colour = {"RGB": 2, "L": 0, "RGBA": 6, "LA": 4}[mode]
    shades = [0x40, 0x80, 0xC0, 0xFF][: len(mode) - mode.count("A")] + [0xFF] * mode.count("A")
    rows = b"".join(bytes([shade, 7]) for shade in shades) * 4
    expected = shades[:3] if len(shades) > 2 else shades[:1] * 3
    assert flat(png(2, 2, 16, colour, rows)) == expected
