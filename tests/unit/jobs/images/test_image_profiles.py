"""Decoding: embedded colour profiles are converted to sRGB on the square."""

from typing import Any

import numpy as np
import pytest
from orchard_jobs.images import colour
from PIL import Image, ImageCms
from support.pictures import flat, good, picture, resized, saved
from support.profiles import P3, cmyk_profile, gray_profile, rgb_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TILE = (200, 100, 50)


def p3_in_srgb(rgb: tuple[int, int, int]) -> list[float]:
    """What the primaries of Display P3 and a gamma of 2.2 make of a colour, by the formula."""
    linear = (np.array(rgb) / 255) ** 2.2 @ np.array(P3)
    to_srgb = np.array([[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]])
    values = np.clip(to_srgb @ linear, 0, 1)
    return [float(one) for one in 255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_profile_of_wider_colours_is_converted(kind: str) -> None:
    options: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}
    found = flat(saved(Image.new("RGB", (16, 16), TILE), kind, icc_profile=rgb_profile(), **options.get(kind, {})))
    assert np.abs(np.array(found) - p3_in_srgb(TILE)).max() <= 2
    assert np.abs(np.array(found) - TILE).max() > 10


def with_colour_box(content: bytes, body: bytes) -> bytes:
    """A JP2 with another colour box."""
    header, colour = content.index(b"jp2h") - 4, content.index(b"colr") - 4
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in (header, colour)]
    box = (8 + len(body)).to_bytes(4, "big") + b"colr" + body
    grown = (sizes[0] + len(box) - sizes[1]).to_bytes(4, "big")
    return content[:header] + grown + content[header + 4 : colour] + box + content[colour + sizes[1] :]


def test_a_jp2_s_profile_is_converted_and_its_damage_ignored() -> None:
    content = saved(Image.new("RGB", (16, 16), TILE), "JPEG2000")
    found = flat(with_colour_box(content, b"\2\0\0" + rgb_profile()))
    assert np.abs(np.array(found) - p3_in_srgb(TILE)).max() <= 2
    for body in (b"\2\0\0" + rgb_profile()[:99], b"\2\0\0garbage", b"\1\0\0\0\0\0\x10"):
        assert np.abs(np.array(flat(with_colour_box(content, body))) - TILE).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_profile_of_gray_shades_is_converted(kind: str) -> None:
    found = flat(saved(Image.new("L", (16, 16), 64), kind, icc_profile=gray_profile(1.0)))
    assert np.abs(np.array(found) - 137).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_go_by_their_profile(kind: str) -> None:
    found = flat(saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), kind, icc_profile=cmyk_profile(128)))
    assert np.ptp(found) <= 2
    assert 90 < found[0] < 150


@pytest.mark.parametrize("profile", [b"garbage", rgb_profile()[:200], gray_profile(1.0), cmyk_profile(9), SRGB, bytes(128)])
def test_a_profile_that_is_broken_or_of_other_colours_is_none(profile: bytes) -> None:
    found = good(saved(picture(), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(found.squares[0], resized(picture()))


def test_transparency_is_white_before_the_profile() -> None:
    clear = Image.new("RGBA", (16, 16), (*TILE, 0))
    assert min(flat(saved(clear, "PNG", icc_profile=rgb_profile()))) >= 254


def test_a_profile_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(picture(), "PNG", icc_profile=rgb_profile(1.7))
    first = good(content)
    monkeypatch.setattr(colour, "_build", lambda *_: pytest.fail("the profile was read again"))
    np.testing.assert_array_equal(good(content).squares[0], first.squares[0])


def test_only_so_many_profiles_are_kept() -> None:
    for number in range(70):
        flat(saved(Image.new("RGB", (2, 2)), "PNG", icc_profile=rgb_profile(1 + number / 100)))
    assert len(colour._transforms) <= 64
