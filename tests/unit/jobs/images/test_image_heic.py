"""Decoding HEIC: the primary picture as its boxes show it, colours as they are told, and damage never shown as gray."""

import importlib.util
import struct
from functools import cache
from typing import Any

import numpy as np
import pi_heif
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.formats import hevc
from orchard_jobs.images.formats.signatures import Format, format_of
from PIL import Image
from support.heics import box, branded, heic, replaced, turned_heic
from support.pictures import LIMIT, bad, good, picture, resized, saved
from support.profiles import rgb_profile

_DISPLAY_P3 = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6, "full_range_flag": 1}


@cache
def photo(width: int = 200, height: int = 136) -> Image.Image:
    """A picture with soft colours, its corners unlike each other."""
    return picture(16, 12, seed=5).resize((width, height), Image.Resampling.BICUBIC)


@cache
def file(**options: int) -> bytes:
    return heic(photo(), **options)


def difference(content: bytes, wanted: Image.Image) -> float:
    return float(np.abs(good(content).squares[0].astype(int) - resized(wanted)).mean())


@pytest.mark.parametrize("options", [{}, {"chroma": 444}, {"chroma": 422}, {"tile_size": 64}])
def test_a_picture_comes_out_as_it_was_stored(options: dict[str, int]) -> None:
    found = good(file(**options))
    assert (found.width, found.height) == photo().size
    assert difference(file(**options), photo()) < 3


@pytest.mark.parametrize("size", [(201, 137), (65, 64), (1, 1), (3, 90)])
def test_sides_that_no_block_divides_are_kept(size: tuple[int, int]) -> None:
    found = good(heic(photo().resize(size)))
    assert (found.width, found.height) == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_once_by_its_boxes(orientation: int) -> None:
    content = turned_heic(photo(), orientation)
    upright = pi_heif.open_heif(content).to_pillow()
    found = good(content)
    assert (found.width, found.height) == upright.size
    assert difference(content, upright) < 3


def test_exif_alone_does_not_turn_a_picture() -> None:
    found = good(replaced(turned_heic(photo(), 6), b"irot\3", b"irot\0"))
    assert (found.width, found.height) == photo().size


def test_a_large_picture_is_reduced_as_others_are() -> None:
    large = photo(1500, 1400)
    assert difference(heic(large), large) < 1
    assert good(heic(large)).width == 1500


def test_gray_stays_gray() -> None:
    content = heic(photo().convert("L"))
    assert difference(content, photo().convert("L").convert("RGB")) < 2
    assert np.ptp(good(content).squares[0], axis=2).max() == 0


def test_transparency_is_laid_over_white() -> None:
    clear = photo().convert("RGBA")
    clear.putalpha(Image.new("L", photo().size, 0))
    assert good(heic(clear)).squares[0].min() == 255


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("is_full", [0, 1])
def test_planes_become_colours_by_the_told_matrix(matrix: int, is_full: int) -> None:
    told = {"color_primaries": 1, "transfer_characteristics": 13, "matrix_coefficients": matrix, "full_range_flag": is_full}
    assert difference(file(**told), photo()) < 3


def test_display_p3_is_converted_with_and_without_a_profile() -> None:
    red = Image.new("RGB", (64, 64), (200, 60, 60))
    told = good(heic(red, **_DISPLAY_P3)).squares[0].reshape(-1, 3).mean(0)
    by_profile = good(heic(red, icc_profile=rgb_profile())).squares[0].reshape(-1, 3).mean(0)
    # In sRGB the same red is a stronger one.
    assert told == pytest.approx([218, 42, 52], abs=4)
    assert by_profile == pytest.approx(told, abs=6)


def test_colours_of_bt709_are_brightened_to_srgb() -> None:
    told = {"color_primaries": 1, "transfer_characteristics": 1, "matrix_coefficients": 1, "full_range_flag": 1}
    shade = good(heic(Image.new("RGB", (64, 64), (60, 60, 60)), **told)).squares[0].mean()
    assert shade == pytest.approx(72, abs=3)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_brightness_beyond_white_is_unsupported(transfer: int, name: str) -> None:
    told = {"color_primaries": 9, "transfer_characteristics": transfer, "matrix_coefficients": 9, "full_range_flag": 1}
    found = bad(file(**told))
    assert (found.reason, name in found.message) == (Reason.UNSUPPORTED, True)


@pytest.mark.parametrize("tile_size", [0, 64])
def test_a_picture_that_is_cut_is_truncated(tile_size: int) -> None:
    content = file(tile_size=tile_size)
    head = int.from_bytes(content[:4], "big")
    for end in (16, head - 1, *range(head + 1, len(content), max(1, len(content) // 60))):
        assert bad(content[:end]).reason == Reason.TRUNCATED


@pytest.mark.parametrize("has_rows", [0, 1])
def test_data_that_are_overwritten_are_truncated(has_rows: int) -> None:
    content = heic(photo(), enc_params={"x265:wpp": str(has_rows)})
    data = content.index(b"mdat") + 60
    for start in range(data, len(content) - 120, (len(content) - data) // 12):
        for filler in (bytes(100), b"\xff" * 100, bytes(range(1, 101))):
            assert bad(content[:start] + filler + content[start + 100 :]).reason == Reason.TRUNCATED


@pytest.mark.parametrize("options", [{"enc_params": {"x265:wpp": "0"}}, {"tile_size": 64}])
@pytest.mark.parametrize("size", [3, 40])
def test_a_hole_of_zeros_is_truncated(size: int, options: dict[str, Any]) -> None:
    content = heic(photo(), **options)
    data = content.index(b"mdat") + 100
    for start in range(data, len(content) - size, max(1, (len(content) - data) // 60)):
        found = bad(content[:start] + bytes(size) + content[start + size :])
        assert found.reason == Reason.TRUNCATED


@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"quality": 1}, {"chroma": 444}])
def test_a_flat_picture_has_no_zeros_of_its_own(options: dict[str, int]) -> None:
    for shade in (0, 128, 255):
        good(heic(Image.new("RGB", (640, 480), (shade, shade, shade)), **options))


def test_data_that_end_early_leave_no_blank_blocks() -> None:
    content = heic(photo(), enc_params={"x265:slices": "1", "x265:wpp": "0"})
    found = set()
    data = content.index(b"mdat") + 60
    for place in range(data, len(content), max(1, (len(content) - data) // 150)):
        flipped = content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
        judged = decode(flipped, LIMIT, 224)
        if not isinstance(judged, Decoded):
            found.add(judged.message)
    assert "HEVC: the data end before the picture does" in found


def test_a_missing_tile_is_truncated() -> None:
    content = file(tile_size=64)
    names = content.index(b"dimg") + 8
    lost = content[:names] + struct.pack(">H", 999) + content[names + 2 :]
    assert bad(lost).reason == Reason.TRUNCATED


def test_pixels_are_judged_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hevc, "_library", lambda: pytest.fail("something was decoded"))
    size = struct.pack(">II", *photo().size)
    assert bad(replaced(file(), size, struct.pack(">II", 60_000, 60_000))).reason == Reason.OVER_PIXEL_LIMIT
    assert bad(file(), limit=photo().width * photo().height - 1).reason == Reason.OVER_PIXEL_LIMIT


def test_data_larger_than_their_header_get_no_memory() -> None:
    size = struct.pack(">II", *photo().size)
    assert bad(replaced(file(), size, struct.pack(">II", 32, 32))).reason == Reason.TRUNCATED


def test_the_primary_picture_tells_what_a_general_brand_holds() -> None:
    avif = saved(photo(), "AVIF")
    assert format_of(branded(file(), b"mif1", b"mif1")) == Format.HEIC
    assert format_of(branded(avif, b"mif1", b"miaf")) == Format.AVIF
    assert format_of(branded(file(), b"heic", b"avif")) == Format.HEIC
    assert good(branded(avif, b"mif1", b"miaf")).width == photo().width


@pytest.mark.parametrize("brands", [(b"heix", b"mif1"), (b"hevc", b"msf1"), (b"msf1", b"hevc")])
def test_of_a_sequence_the_primary_picture_is_read(brands: tuple[bytes, bytes]) -> None:
    assert good(branded(file(), *brands)).width == photo().width


def test_a_sequence_without_a_primary_picture_is_unsupported() -> None:
    found = bad(box(b"ftyp", b"hevc\0\0\0\0msf1hevc") + box(b"moov", box(b"mvhd", bytes(100))))
    assert (found.reason, "sequence" in found.message) == (Reason.UNSUPPORTED, True)


HEADLESS = {
    "nothing more": b"",
    "zeros": bytes(60),
    "data": box(b"free", bytes(8)) + box(b"mdat", bytes(500)),
    "data up to the end": bytes(4) + b"mdat" + bytes(500),
    "a header that names no picture": box(b"meta", bytes(4) + box(b"hdlr", bytes(24))) + box(b"mdat", bytes(500)),
}


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc", b"heif"])
@pytest.mark.parametrize("boxes", HEADLESS)
def test_whole_boxes_without_a_picture_are_unsupported(boxes: str, brand: bytes) -> None:
    found = bad(box(b"ftyp", brand + bytes(4) + brand) + HEADLESS[boxes])
    assert (found.reason, "without a primary picture" in found.message) == (Reason.UNSUPPORTED, True)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc", b"heif"])
@pytest.mark.parametrize("boxes", ["data", "a header that names no picture"])
def test_boxes_that_are_cut_before_any_picture_are_truncated(boxes: str, brand: bytes) -> None:
    content = box(b"ftyp", brand + bytes(4) + brand) + HEADLESS[boxes]
    for end in (len(content) - 1, len(content) - 499, content.index(b"mdat") + 2, content.index(b"mdat") - 6):
        assert bad(content[:end]).reason == Reason.TRUNCATED


@pytest.mark.parametrize("head", [b"\0\0\0\1meta" + b"\xff" * 8, b"\xff\xff\xff\xffmeta", b"\0\0\0\1meta", b"\0\0\0\4meta"])
def test_a_box_of_a_false_size_is_truncated(head: bytes) -> None:
    assert bad(box(b"ftyp", b"heic\0\0\0\0mif1heic") + head + bytes(40)).reason == Reason.TRUNCATED


def test_a_last_box_without_a_size_goes_to_the_end() -> None:
    content = file()
    start = content.index(b"mdat") - 4
    assert good(content[:start] + bytes(4) + content[start + 4 :]).width == photo().width


def test_boxes_in_boxes_do_not_lead_the_reader_down() -> None:
    nested = b""
    for _ in range(20_000):
        nested = struct.pack(">I", 8 + len(nested)) + b"meta" + nested[:200_000]
    assert bad(box(b"ftyp", b"heic\0\0\0\0mif1heic") + nested).reason in (Reason.TRUNCATED, Reason.UNSUPPORTED)


def test_an_essential_property_that_is_not_known_is_unsupported() -> None:
    found = bad(replaced(turned_heic(photo(), 3), b"irot", b"iwhy"))
    assert (found.reason, "iwhy" in found.message) == (Reason.UNSUPPORTED, True)


def test_without_the_package_heic_is_unsupported_and_the_extra_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "_pi_heif" else find(name, *a))
    found = bad(file())
    assert (found.reason, "orchard-jobs[heif]" in found.message) == (Reason.UNSUPPORTED, True)
    assert good(saved(photo(), "AVIF")).width == photo().width
