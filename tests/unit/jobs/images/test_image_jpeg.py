"""Decoding JPEG: what is missing is truncated, however the file ends; what any viewer ignores is good."""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from PIL import Image
from support.pictures import LIMIT, bad, good, picture, resized, saved

SOURCE = picture(160, 120, seed=3)
EOI = b"\xff\xd9"
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 4},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 4},
    "whole colours": {"subsampling": 0},
}
MODES = ["RGB", "L", "CMYK"]
DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda content, at: content[:at],
    "cut and ended": lambda content, at: content[:at] + EOI,
    "zeroed and ended": lambda content, at: content[:at] + bytes(len(content) - at - 2) + EOI,
    "zeroed": lambda content, at: content[:at] + bytes(len(content) - at),
    "erased and ended": lambda content, at: content[:at] + b"\xff" * (len(content) - at - 2) + EOI,
    "erased": lambda content, at: content[:at] + b"\xff" * (len(content) - at),
}


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return saved(SOURCE.convert(mode), "JPEG", **options)


def scans(content: bytes) -> list[int]:
    """Where the scans begin."""
    return [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_has_the_pixels_that_pillow_reads(kind: str, mode: str) -> None:
    content = jpeg(mode, **KINDS[kind])
    whole = Image.open(io.BytesIO(content))
    square = whole.resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(good(content).squares[0], np.asarray(square.convert("RGB")))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_missing_data_are_truncated(kind: str, mode: str, damage: str) -> None:
    content = jpeg(mode, **KINDS[kind])
    first = scans(content)[0] + 20
    for at in range(first, len(content) - 64, (len(content) - first) // 8):
        assert bad(DAMAGES[damage](content, at)).reason == Reason.TRUNCATED


@pytest.mark.parametrize(("marker", "after"), [(b"\xff\xdb", 0), (b"\xff\xda", 0), (b"\xff\xda", 200)])
@pytest.mark.parametrize("filler", [b"\xff", b"\xff" * 100_000 + b"\0"])
def test_megabytes_of_an_erased_disk_are_truncated(filler: bytes, marker: bytes, after: int) -> None:
    # A search that begins anew at each of these bytes would take hours.
    content = jpeg()
    erased = filler * (8_000_000 // len(filler))
    assert bad(content[: content.index(marker) + after] + erased).reason == Reason.TRUNCATED


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_fill_bytes_may_come_before_any_marker(kind: str) -> None:
    content, start = jpeg(**KINDS[kind]), scans(jpeg(**KINDS[kind]))[0]
    for stray in (b"", b"\0"):
        filled = content[:2] + stray + content[2:start] + b"\xff" * 9 + content[start:-2] + b"\xff" * 9 + EOI
        np.testing.assert_array_equal(good(filled).squares[0], good(content).squares[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_transfer_as_text_is_truncated(kind: str) -> None:
    content = jpeg(**KINDS[kind])
    assert bad(content.replace(b"\n", b"\r\n")).reason == Reason.TRUNCATED
    assert bad(content.replace(b"\r", b"")).reason == Reason.TRUNCATED


def test_a_progressive_jpeg_needs_each_of_its_scans() -> None:
    content = jpeg(progressive=True)
    starts = [*scans(content), len(content) - 2]
    for start, end in zip(starts, starts[1:], strict=False):
        # The tables of the next scan lie at the end of this one.
        table = content.find(b"\xff\xc4", start, end)
        without = content[:start] + content[table if table > 0 else end :]
        assert bad(without).reason == Reason.TRUNCATED
    assert "no scan completes" in bad(content[: starts[1]] + EOI).message


def test_the_end_marker_must_be_there() -> None:
    assert bad(jpeg()[:-2]).reason == Reason.TRUNCATED


@pytest.mark.parametrize("tail", [b"\0" * 512, b"\xff" * 7, b"trailer", b"\0" * 40 + EOI])
def test_what_follows_the_end_marker_is_ignored(tail: bytes) -> None:
    np.testing.assert_array_equal(good(jpeg() + tail).squares[0], good(jpeg()).squares[0])


@pytest.mark.parametrize("stray", [b"\0", b"abc", b"\0" * 300, b"\xff", b"\r\n", b"\xff\0"])
@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_stray_bytes_between_header_segments_are_skipped(stray: bytes, kind: str) -> None:
    content = jpeg(**KINDS[kind])
    tables, frame = content.index(b"\xff\xdb"), content.index(b"\xff\xc4")
    found = good(content[:tables] + stray + content[tables:frame] + stray + content[frame:])
    np.testing.assert_array_equal(found.squares[0], good(content).squares[0])


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
@pytest.mark.parametrize("extra", [b"\0", b"abc", b"\0" * 64, b"\0" * 4096, b"\r\n", b"\xff\xd8", b"\xff\xd8" * 2])
def test_stray_bytes_and_start_markers_at_the_start_are_skipped(extra: bytes, kind: str) -> None:
    content = jpeg(**KINDS[kind])
    np.testing.assert_array_equal(good(content[:2] + extra + content[2:]).squares[0], good(content).squares[0])


def test_a_start_marker_after_the_frame_is_no_good_picture() -> None:
    content = jpeg()
    scan = content.index(b"\xff\xda")
    bad(content[:scan] + b"\xff\xd8" + content[scan:])


@pytest.mark.parametrize("count", [1, 5, 6, 100])
def test_zeros_after_the_last_pixel_are_truncated(count: int) -> None:
    content = jpeg()
    assert bad(content[:-2] + bytes(count) + EOI).reason == Reason.TRUNCATED


def with_zeros(content: bytes, at: int, size: int) -> bytes:
    return content[:at] + bytes(size) + content[at + size :]


@pytest.mark.parametrize("size", [20, 64, 512])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["baseline", "optimised", "whole colours"])
def test_a_hole_of_zeros_is_truncated(kind: str, mode: str, size: int) -> None:
    content = jpeg(mode, **KINDS[kind])
    first = scans(content)[0] + 20
    for at in range(first, len(content) - size - 2, (len(content) - first) // 16):
        found = bad(with_zeros(content, at, size))
        assert found.reason == Reason.TRUNCATED
        assert "zero bytes stand" in found.message


def test_a_hole_of_zeros_in_a_progressive_scan_is_truncated() -> None:
    content = saved(picture(800, 600), "JPEG", progressive=True, quality=95)
    starts = scans(content)
    # The first scan brings the mean of each block; zeros let it fall below black. Scans 2, 3 and 4 bring wide bands, and 5 and 9
    # a further bit.
    for scan in (0, 2, 3, 4, 5, 9):
        assert "zero bytes stand" in bad(with_zeros(content, starts[scan] + 40, 600)).message


def test_a_hole_of_zeros_in_colours_alone_is_truncated() -> None:
    noise = [Image.fromarray(np.random.default_rng(seed).integers(90, 160, (120, 160), np.uint8)) for seed in (1, 2)]
    source = Image.merge("YCbCr", [Image.new("L", (160, 120), 128), *noise])
    content = saved(source, "JPEG", optimize=True, subsampling=0, quality=95)
    first = scans(content)[0] + 40
    for at in range(first, len(content) - 80, (len(content) - first) // 16):
        assert "zero bytes stand" in bad(with_zeros(content, at, 64)).message


def test_a_long_fall_of_brightness_may_have_many_zeros() -> None:
    columns = np.mgrid[:64, :1024][1]
    content = saved(Image.fromarray((255 - columns // 8 * 2).clip(0).astype(np.uint8)), "JPEG", optimize=True, quality=50)
    assert bytes(20) in content
    good(content)


ROWS, COLUMNS = np.mgrid[:256, :256]
REGULAR = {
    "flat": np.full((256, 256), 255),
    "falling": 255 - COLUMNS // 2,
    "falling steeply": 255 - COLUMNS,
    "dots": np.where((COLUMNS % 8 == 0) & (ROWS % 8 == 0), 104, 128),
    "faint dots": np.where((COLUMNS % 8 == 0) & (ROWS % 8 == 0), 123, 128),
    "stripes": COLUMNS // 8 % 2 * 255,
    "narrow stripes": COLUMNS // 4 % 2 * 255,
    "narrow stripes above noise": np.where(ROWS < 128, COLUMNS // 4 % 2 * 255, ROWS * COLUMNS**2 % 251),
    "squares": (COLUMNS // 7 + ROWS // 7) % 2 * 255,
}


@pytest.mark.parametrize("what", REGULAR)
@pytest.mark.parametrize("kind", KINDS)
def test_a_regular_picture_may_have_many_zeros(kind: str, what: str) -> None:
    source = Image.fromarray(REGULAR[what].astype(np.uint8))
    for mode in MODES:
        for quality in (1, 30, 75, 90, 100):
            good(saved(source.convert(mode), "JPEG", quality=quality, **KINDS[kind]), side=8)
    if (kind, what) == ("optimised", "flat"):
        assert bytes(100) in saved(source, "JPEG", **KINDS[kind])


def test_a_thumbnail_does_not_end_its_picture() -> None:
    thumbnail = saved(SOURCE.resize((16, 12)), "JPEG")
    content = jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail)
    np.testing.assert_array_equal(good(content).squares[0], good(jpeg()).squares[0])
    assert bad(content[: content.rindex(b"\xff\xda") + 40] + EOI).reason == Reason.TRUNCATED


def test_further_pictures_behind_the_first_are_ignored() -> None:
    content = saved(SOURCE, "MPO", save_all=True, append_images=[SOURCE.rotate(90)])
    np.testing.assert_array_equal(good(content).squares[0], good(jpeg()).squares[0])


def with_frame(marker: int, bits: int = 8, height: int = 120) -> bytes:
    content = jpeg()
    at = content.index(b"\xff\xc0")
    return content[:at] + struct.pack(">BBHBH", 0xFF, marker, 17, bits, height) + content[at + 7 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_frame(0xC9), "arithmetic"),
        (with_frame(0xCA), "arithmetic"),
        (with_frame(0xC5), "hierarchical"),
        (with_frame(0xF7), "JPEG-LS"),
        (with_frame(0xC1, bits=12), "12 bits"),
        (with_frame(0xC0, height=0), "height"),
    ],
)
def test_a_jpeg_of_another_kind_is_unsupported(content: bytes, words: str) -> None:
    found = bad(content)
    assert found.reason == Reason.UNSUPPORTED
    assert words in found.message


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_hundreds_of_scans_are_too_costly(mode: str) -> None:
    content = jpeg(mode, progressive=True)
    start = content.index(b"\xff\xc2")
    huge = content[: start + 5] + struct.pack(">HH", 5000, 9000) + content[start + 9 :]
    first = scans(content)[0]
    scan = huge[first : huge.index(b"\xff\xc4", first)]
    found = bad(huge[:first] + scan * 200 + huge[first:], LIMIT)
    assert found.reason == Reason.TOO_COSTLY
    assert "scans" in found.message


def test_a_jpeg_is_over_the_limit_by_its_header_alone() -> None:
    content = jpeg()
    header = content[: content.index(b"\xff\xda")]
    assert bad(header, limit=19_199).reason == Reason.OVER_PIXEL_LIMIT


@pytest.mark.parametrize("factors", [b"\0\0\0", b"\0\x11\x11", b"\x22\0\x11", b"\x01\x10\x11"])
def test_a_sampling_factor_of_zero_is_unsupported(factors: bytes) -> None:
    content = bytearray(jpeg())
    first = content.index(b"\xff\xc0") + 11
    content[first : first + 9 : 3] = factors
    assert bad(bytes(content)).reason == Reason.UNSUPPORTED


def test_gray_is_resized_as_gray() -> None:
    np.testing.assert_array_equal(
        good(jpeg("L", quality=100)).squares[0], resized(Image.open(io.BytesIO(jpeg("L", quality=100))).convert("RGB"))
    )


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


ICC = b"ICC_PROFILE\0"
ODD_METADATA = {
    "part 0": segment(0xE2, ICC + b"\0\1" + bytes(200)),
    "part 9 of 2": segment(0xE2, ICC + b"\x09\2" + bytes(200)),
    "one part twice": 2 * segment(0xE2, ICC + b"\1\1" + bytes(200)),
    "a part that is missing": segment(0xE2, ICC + b"\2\2" + bytes(200)),
    "an empty part": segment(0xE2, ICC),
    "Adobe's transform 7": segment(0xEE, b"Adobe\0\x64\0\0\0\0\7"),
    "Adobe's transform 2 of three components": segment(0xEE, b"Adobe\0\x64\0\0\0\0\2"),
}


@pytest.mark.parametrize("what", ODD_METADATA)
@pytest.mark.parametrize("jfif", [b"\1\1", b"\x09\x09", b"\0\1"])
def test_metadata_without_sense_decide_nothing(what: str, jfif: bytes) -> None:
    content = saved(picture(), "JPEG")
    assert content[6:11] == b"JFIF\0"
    odd = content[:11] + jfif + content[13:20] + ODD_METADATA[what] + content[20:]
    np.testing.assert_array_equal(good(odd).squares[0], good(content).squares[0])


def test_a_damaged_header_is_truncated() -> None:
    content = saved(picture(), "JPEG")
    tables = content.index(b"\xff\xdb")
    assert bad(content[: tables + 4] + b"\x0f" + content[tables + 5 :]).reason == Reason.TRUNCATED
