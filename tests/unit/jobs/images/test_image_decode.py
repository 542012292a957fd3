"""Decoding: every odd kind converted by its rule, every broken kind set aside with a reason and stable words."""

import io
import random
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Decoded, Rejected, decode
from PIL import Image, ImageFile

LIMIT = 50_000_000


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 30, height: int = 20, seed: int = 1) -> Image.Image:
    """A picture of 2 x 2 blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(2, axis=0).repeat(2, axis=1))


def resized(rgb: Image.Image, side: int = 224) -> NDArray[np.uint8]:
    return np.asarray(rgb.resize((side, side), Image.Resampling.BICUBIC))


def good(content: bytes, side: int = 224) -> Decoded:
    found = decode(content, LIMIT, side)
    assert isinstance(found, Decoded), found
    assert found.pixels.dtype == np.uint8
    assert found.pixels.shape == (side, side, 3)
    return found


def bad(content: bytes, limit: int = LIMIT) -> Rejected:
    found = decode(content, limit, 224)
    assert isinstance(found, Rejected), found
    assert "0x" not in found.message
    assert found == decode(content, limit, 224)
    return found


def flat(content: bytes) -> list[int]:
    """The one colour of an image of one colour."""
    pixels = good(content).pixels.reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return [int(value) for value in pixels[0]]


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand; `rows` are unfiltered and have no filter bytes yet."""
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[start : start + stride] for start in range(0, len(rows), stride))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_a_lossless_picture_is_resized_whole(kind: str) -> None:
    found = good(saved(picture(), kind))
    np.testing.assert_array_equal(found.pixels, resized(picture()))
    assert (found.width, found.height) == (30, 20)


def test_the_square_has_the_side_that_is_asked_for() -> None:
    np.testing.assert_array_equal(good(saved(picture(), "PNG"), side=32).pixels, resized(picture(), 32))


def test_a_jpeg_is_decoded_at_full_size() -> None:
    content = saved(picture(1600, 1200), "JPEG", quality=90)
    np.testing.assert_array_equal(good(content).pixels, resized(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "JPEG2000", "AVIF", "PCX", "SGI"])
def test_other_formats_decode(kind: str) -> None:
    found = good(saved(picture(), kind))
    assert (found.width, found.height) == (30, 20)
    assert np.abs(found.pixels.mean((0, 1)) - resized(picture()).mean((0, 1))).max() < 12


def test_grayscale_and_one_bit() -> None:
    gray = picture().convert("L")
    np.testing.assert_array_equal(good(saved(gray, "PNG")).pixels, resized(gray.convert("RGB")))
    bits = picture().convert("1")
    np.testing.assert_array_equal(good(saved(bits, "PNG")).pixels, resized(bits.convert("RGB")))
    assert flat(saved(Image.new("1", (9, 9), 1), "PNG")) == [255, 255, 255]


def test_palette_colours() -> None:
    palette = picture().quantize(16)
    np.testing.assert_array_equal(good(saved(palette, "PNG")).pixels, resized(palette.convert("RGB")))


def test_transparency_is_laid_over_white() -> None:
    assert flat(saved(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "PNG")) == [255, 255, 255]
    assert flat(saved(Image.new("RGBA", (8, 8), (200, 0, 0, 255)), "PNG")) == [200, 0, 0]
    assert flat(saved(Image.new("RGBA", (8, 8), (200, 0, 100, 51)), "PNG")) == [244, 204, 224]
    assert flat(saved(Image.new("LA", (8, 8), (100, 51)), "PNG")) == [224, 224, 224]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([1, 2, 3, 200, 0, 100])
    assert flat(saved(palette, "PNG")) == [200, 0, 100]
    assert flat(saved(palette, "PNG", transparency=1)) == [255, 255, 255]
    assert flat(saved(palette, "PNG", transparency=bytes([255, 51]))) == [244, 204, 224]
    assert flat(saved(palette, "GIF", transparency=1)) == [255, 255, 255]
    keyed = png(2, 2, 8, 2, bytes([9, 8, 7] * 4), chunk(b"tRNS", struct.pack(">HHH", 9, 8, 7)))
    assert flat(keyed) == [255, 255, 255]


def test_colours_behind_transparency_do_not_bleed() -> None:
    hidden, shown = Image.new("RGBA", (40, 40), (255, 0, 0, 0)), Image.new("RGBA", (20, 40), (0, 0, 0, 255))
    hidden.paste(shown, (0, 0))
    pixels = good(saved(hidden, "PNG")).pixels
    assert (pixels[..., 0] == pixels[..., 1]).all()


def test_cmyk_of_adobe_polarity() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert max(abs(a - b) for a, b in zip(flat(saved(cmyk, "JPEG", quality=100)), (255, 0, 0), strict=True)) <= 2
    assert flat(saved(Image.new("CMYK", (16, 16), (51, 0, 102, 0)), "TIFF")) == [204, 255, 153]
    assert flat(saved(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "TIFF")) == [0, 0, 0]


def test_lab_colours() -> None:
    red = flat(saved(Image.new("LAB", (8, 8), (136, 208, 195)), "TIFF"))
    assert max(abs(a - b) for a, b in zip(red, (255, 0, 0), strict=True)) <= 12


@pytest.mark.parametrize(("value", "shade"), [(0, 0), (255, 0), (256, 1), (0x1234, 0x12), (0x8080, 0x80), (65535, 255)])
def test_sixteen_bits_keep_their_high_byte(value: int, shade: int) -> None:
    assert flat(png(2, 2, 16, 0, struct.pack(">H", value) * 4)) == [shade] * 3
    assert flat(png(2, 2, 16, 2, struct.pack(">H", value) * 12)) == [shade] * 3
    assert flat(b"P5 2 2 65535\n" + struct.pack(">H", value) * 4) == [shade] * 3
    numbers = np.full((4, 4), value, np.uint16)
    assert flat(saved(Image.fromarray(numbers), "TIFF")) == [shade] * 3
    assert flat(saved(Image.fromarray(numbers.astype(np.int32)), "TIFF")) == [shade] * 3


def test_sixteen_bits_are_scaled_pixel_by_pixel() -> None:
    numbers = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    content = saved(Image.fromarray(numbers), "PNG")
    shades = Image.fromarray((numbers >> 8).astype(np.uint8)).convert("RGB")
    np.testing.assert_array_equal(good(content).pixels, resized(shades))


def test_wider_integers_and_floats_are_stretched() -> None:
    wide = np.array([[-100_000, 0], [50_000, 100_000]], np.int32).repeat(8, 0).repeat(8, 1)
    shades = np.array([[0, 128], [191, 255]], np.uint8).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(
        good(saved(Image.fromarray(wide), "TIFF")).pixels, resized(Image.fromarray(shades).convert("RGB"))
    )
    assert flat(saved(Image.fromarray(np.full((4, 4), 0.2, np.float32)), "TIFF")) == [51] * 3
    assert flat(saved(Image.fromarray(np.full((4, 4), 200.4, np.float32)), "TIFF")) == [200] * 3
    assert flat(saved(Image.fromarray(np.full((4, 4), -3e9, np.float32)), "TIFF")) == [0] * 3
    floats = (shades.astype(np.float32) - 40) * 1000
    assert np.abs(good(saved(Image.fromarray(floats), "TIFF")).pixels.astype(int).max() - 255) == 0


def test_floats_that_are_no_numbers_are_unsupported() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[1, 1] = np.nan
    assert bad(saved(Image.fromarray(values), "TIFF")).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (12, 12), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert flat(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    moves = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = good(saved(picture(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    upright = Image.fromarray(np.ascontiguousarray(moves[orientation](np.asarray(picture()))))
    np.testing.assert_array_equal(found.pixels, resized(upright))
    assert (found.width, found.height) == ((30, 20) if orientation < 5 else (20, 30))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"\0" * 40])
def test_broken_exif_counts_as_none(exif: bytes) -> None:
    content = saved(picture(), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = good(content)
    np.testing.assert_array_equal(found.pixels, good(saved(picture(), "JPEG")).pixels)


def test_a_sense_free_orientation_counts_as_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    np.testing.assert_array_equal(good(saved(picture(), "PNG", exif=exif)).pixels, resized(picture()))


def test_no_bytes() -> None:
    assert bad(b"") == Rejected(Reason.EMPTY, "the object has no bytes")


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
        b"<html>not found</html>",
        b'<?xml version="1.0"?><svg/>',
        b"%PDF-1.4\n",
        b"PK\x03\x04" + b"\0" * 60,
        b"\0",
        bytes(range(256)),
        "плод".encode(),
    ],
)
def test_text_and_other_files_are_no_images(content: bytes) -> None:
    found = bad(content)
    assert found.reason == Reason.NOT_AN_IMAGE
    assert str(len(content)) in found.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_picture_cut_short_is_truncated(kind: str, share: float) -> None:
    content = saved(picture(200, 160), kind)
    assert bad(content[: int(len(content) * share)]).reason == Reason.TRUNCATED


@pytest.mark.parametrize("length", [3, 7, 12, 20])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_header_cut_short_is_truncated(kind: str, length: int) -> None:
    assert bad(saved(picture(), kind)[:length]).reason == Reason.TRUNCATED


def test_a_broken_checksum_is_truncated() -> None:
    content = bytearray(saved(picture(), "PNG"))
    content[60] ^= 0xFF
    assert bad(bytes(content)).reason == Reason.TRUNCATED


def test_truncated_images_are_refused_whatever_the_process_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(picture(200, 160), "JPEG")[:-2000]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert bad(content).reason == Reason.TRUNCATED


def test_the_pixel_limit_is_judged_from_the_header() -> None:
    header_only = saved(picture(100, 100), "PNG")[:60]
    assert bad(header_only, limit=9_999) == Rejected(Reason.OVER_PIXEL_LIMIT, "10000 pixels, the limit is 9999")
    whole = saved(picture(100, 100), "PNG")
    assert isinstance(decode(whole, 10_000, 224), Decoded)
    assert bad(whole, limit=9_999).reason == Reason.OVER_PIXEL_LIMIT


@pytest.mark.parametrize("side", [12_000, 60_000, 2**31 - 1])
def test_a_bomb_is_never_decoded(side: int) -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"x")
    assert bad(bomb) == Rejected(Reason.OVER_PIXEL_LIMIT, f"{side * side} pixels, the limit is {LIMIT}")


def test_a_higher_limit_than_pillows_own_holds() -> None:
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0))
    assert bad(header + chunk(b"IDAT", b"x"), limit=200_000_000).reason == Reason.TRUNCATED
    assert bad(header + chunk(b"IDAT", b"x"), limit=199_999_999).reason == Reason.OVER_PIXEL_LIMIT


def test_an_icon_that_understates_its_picture_is_judged_by_the_picture() -> None:
    inner = saved(picture(100, 100), "PNG")
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    assert bad(icon, limit=5_000) == Rejected(Reason.OVER_PIXEL_LIMIT, "10000 pixels, the limit is 5000")


def test_what_this_build_cannot_do_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bad(b"\0\0\0\x18ftypheic" + b"\0" * 40).reason == Reason.UNSUPPORTED
    assert bad(b"\x89HDF\r\n\x1a\n" + b"\0" * 600).reason == Reason.UNSUPPORTED
    eps = saved(picture(), "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was started"))
    assert bad(eps).reason == Reason.UNSUPPORTED
    palette = saved(picture().quantize(8), "PNG")
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: int("conversion from P to RGB not supported"))
    assert bad(palette).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), Reason.UNSUPPORTED),
        (OSError("decoder jpeg not available"), Reason.UNSUPPORTED),
        (NotImplementedError("mode"), Reason.UNSUPPORTED),
        (OSError("image file is truncated (8 bytes not processed)"), Reason.TRUNCATED),
        (ZeroDivisionError("division by zero"), Reason.TRUNCATED),
        (RecursionError("maximum recursion depth exceeded"), Reason.TRUNCATED),
        (ValueError("bad <_io.BytesIO object at 0x7f12ab>"), Reason.TRUNCATED),
    ],
)
def test_any_exception_of_a_decoder_becomes_a_reason(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason) -> None:
    def fail(self: Any) -> None:
        raise error

    content = saved(picture(), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    found = bad(content)
    assert found.reason == reason
    assert found.message.startswith(type(error).__name__)


def test_no_bytes_make_it_raise() -> None:
    draw = random.Random(4)
    sources = [saved(picture(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "JPEG2000", "DDS")]
    reasons = set()
    for _ in range(600):
        content = bytearray(draw.choice(sources))
        for _ in range(draw.choice((1, 4, 40))):
            content[draw.randrange(min(len(content), draw.choice((64, 10**9))))] = draw.randrange(256)
        found = decode(bytes(content), 100_000, 32)
        if isinstance(found, Rejected):
            assert not re.search(r"0x[0-9a-f]{6}", found.message), found.message
        reasons.add(found.reason if isinstance(found, Rejected) else None)
    assert {None, Reason.TRUNCATED, Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED, Reason.OVER_PIXEL_LIMIT} <= reasons


def test_many_threads_decode_alike_and_leave_the_warning_filters() -> None:
    filters = list(warnings.filters)
    contents = [saved(picture(seed=seed), "JPEG", exif=b"Exif\0\0garbage") for seed in range(40)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(good, contents))
    for found, content in zip(together, contents, strict=True):
        np.testing.assert_array_equal(found.pixels, good(content).pixels)
    assert list(warnings.filters) == filters


DO_NOT_DECODE = {
    "truncated_jpeg.jpg": Reason.TRUNCATED,
    "broken-bogus-segment-length.jpg": Reason.TRUNCATED,
    "514c48ea-02a8-11e7-8789-bb75321f404f.jpg": Reason.TRUNCATED,
    "broken-no-sof-ascii-transfer-mode.jpg": Reason.TRUNCATED,
    "5145e95a-02a8-11e7-8372-4787a7307ab8.jpg": Reason.NOT_AN_IMAGE,
}


def test_the_real_problem_files(shared_data: Path) -> None:
    files = [file for file in (shared_data / "problem_files").rglob("*") if file.is_file()]
    reasons = {}
    for file in files:
        found = decode(file.read_bytes(), LIMIT, 224)
        if isinstance(found, Rejected):
            reasons[file.name] = found.reason
    pointers = {file.name: Reason.NOT_AN_IMAGE for file in files if file.parent.name == "git_lfs_pointer"}
    assert len(files) == 26
    assert reasons == DO_NOT_DECODE | pointers


def test_real_photographs_are_turned_upright(shared_data: Path) -> None:
    natural = shared_data / "problem_files" / "natural"
    for name, size in {
        "Landscape_6.jpg": (1800, 1200),
        "Portrait_3.jpg": (1200, 1800),
        "cmyk-sample.jpg": (160, 227),
    }.items():
        found = good((natural / name).read_bytes())
        assert (found.width, found.height) == size
    upright = good((natural / "hopper.jpg").read_bytes()).pixels.astype(int)
    for name in ("hopper_orientation_3.jpg", "hopper_orientation_6.jpg"):
        turned = good((natural / name).read_bytes()).pixels.astype(int)
        assert np.abs(turned - upright).mean() < 5 < np.abs(turned[::-1] - upright).mean()
