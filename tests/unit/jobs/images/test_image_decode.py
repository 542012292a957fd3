"""Decoding: every odd kind of picture is converted by its rule."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from PIL import Image
from support.pictures import bad, chunk, flat, good, picture, png, resized, saved


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_a_lossless_picture_is_resized_whole(kind: str) -> None:
    found = good(saved(picture(), kind))
    np.testing.assert_array_equal(found.squares[0], resized(picture()))
    assert (found.width, found.height) == (30, 20)


def test_the_square_has_the_side_that_is_asked_for() -> None:
    np.testing.assert_array_equal(good(saved(picture(), "PNG"), side=32).squares[0], resized(picture(), 32))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "JPEG2000", "AVIF"])
def test_other_formats_decode(kind: str) -> None:
    found = good(saved(picture(), kind))
    assert (found.width, found.height) == (30, 20)
    assert np.abs(found.squares[0].mean((0, 1)) - resized(picture()).mean((0, 1))).max() < 12


def test_grayscale_and_one_bit() -> None:
    gray = picture().convert("L")
    np.testing.assert_array_equal(good(saved(gray, "PNG")).squares[0], resized(gray.convert("RGB")))
    bits = picture().convert("1")
    np.testing.assert_array_equal(good(saved(bits, "PNG")).squares[0], resized(bits.convert("RGB")))
    assert flat(saved(Image.new("1", (9, 9), 1), "PNG")) == [255, 255, 255]


def test_palette_colours() -> None:
    palette = picture().quantize(16)
    np.testing.assert_array_equal(good(saved(palette, "PNG")).squares[0], resized(palette.convert("RGB")))


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
    pixels = good(saved(hidden, "PNG")).squares[0]
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


@pytest.mark.parametrize(("value", "shade"), [(0, 0), (200, 200), (255, 255), (256, 1), (0x1234, 0x12), (65535, 255), (65536, 0)])
def test_wider_integers_are_of_the_least_usual_range_they_fit(value: int, shade: int) -> None:
    assert flat(saved(Image.fromarray(np.full((4, 4), value, np.int32)), "TIFF")) == [shade] * 3


def test_sixteen_bits_are_scaled_pixel_by_pixel() -> None:
    numbers = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    content = saved(Image.fromarray(numbers), "PNG")
    shades = Image.fromarray((numbers >> 8).astype(np.uint8)).convert("RGB")
    np.testing.assert_array_equal(good(content).squares[0], resized(shades))


def test_wider_integers_and_floats_are_stretched() -> None:
    wide = np.array([[-100_000, 0], [50_000, 100_000]], np.int32).repeat(8, 0).repeat(8, 1)
    shades = np.array([[0, 128], [191, 255]], np.uint8).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(
        good(saved(Image.fromarray(wide), "TIFF")).squares[0], resized(Image.fromarray(shades).convert("RGB"))
    )
    assert flat(saved(Image.fromarray(np.full((4, 4), 0.2, np.float32)), "TIFF")) == [51] * 3
    assert flat(saved(Image.fromarray(np.full((4, 4), 200.4, np.float32)), "TIFF")) == [200] * 3
    floats = (shades.astype(np.float32) - 40) * 1000
    assert np.abs(good(saved(Image.fromarray(floats), "TIFF")).squares[0].astype(int).max() - 255) == 0


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
    np.testing.assert_array_equal(found.squares[0], resized(upright))
    assert (found.width, found.height) == ((30, 20) if orientation < 5 else (20, 30))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"\0" * 40])
def test_broken_exif_counts_as_none(exif: bytes) -> None:
    content = saved(picture(), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = good(content)
    np.testing.assert_array_equal(found.squares[0], good(saved(picture(), "JPEG")).squares[0])


def test_a_sense_free_orientation_counts_as_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    np.testing.assert_array_equal(good(saved(picture(), "PNG", exif=exif)).squares[0], resized(picture()))


def test_real_photographs_are_turned_upright(shared_data: Path) -> None:
    natural = shared_data / "problem_files" / "natural"
    for name, size in {
        "Landscape_6.jpg": (1800, 1200),
        "Portrait_3.jpg": (1200, 1800),
        "cmyk-sample.jpg": (160, 227),
    }.items():
        found = good((natural / name).read_bytes())
        assert (found.width, found.height) == size
    upright = good((natural / "hopper.jpg").read_bytes()).squares[0].astype(int)
    for name in ("hopper_orientation_3.jpg", "hopper_orientation_6.jpg"):
        turned = good((natural / name).read_bytes()).squares[0].astype(int)
        assert np.abs(turned - upright).mean() < 5 < np.abs(turned[::-1] - upright).mean()
