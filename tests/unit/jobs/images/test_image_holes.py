"""Decoding WebP and AVIF: zeros in place of data are truncated, although the libraries decode them; flat pictures are good."""

from typing import Any

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Rejected, decode
from orchard_jobs.images.formats.isobmff import Container, Item
from PIL import Image
from support.pictures import LIMIT, bad, good, picture, saved

ROWS, COLUMNS = np.mgrid[:512, :512]
DRAWN = {
    "flat": np.full((512, 512), 128),
    "white": np.full((512, 512), 255),
    "gradient": COLUMNS // 2,
    "dots": np.where((COLUMNS % 8 == 0) & (ROWS % 8 == 0), 100, 255),
    "stripes": COLUMNS // 8 % 2 * 255,
}
WEBP: dict[str, dict[str, Any]] = {
    "lossy": {},
    "fast": {"method": 0},
    "fine": {"quality": 98},
    "lossless": {"lossless": True, "quality": 20},
    "animated": {"save_all": True, "append_images": [Image.new("RGB", (160, 120))]},
}


def with_hole(content: bytes, at: int, size: int) -> bytes:
    return content[:at] + bytes(size) + content[at + size :]


def photo(seed: int) -> Image.Image:
    """A picture with shapes of several sizes, as photos have."""
    layers = [picture(side * 4, side * 3, seed + side).resize((160, 120), Image.Resampling.BICUBIC) for side in (2, 6, 20, 40)]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))


@pytest.mark.parametrize("kind", WEBP)
@pytest.mark.parametrize("size", [40, 512])
def test_a_hole_of_zeros_in_a_webp_is_truncated(size: int, kind: str) -> None:
    found = []
    for seed in range(4):
        content = saved(photo(seed), "WEBP", **WEBP[kind])
        end = content.index(b"ANMF", content.index(b"ANMF") + 4) if kind == "animated" else len(content)
        found += [decode(with_hole(content, at, size), LIMIT, 32) for at in range(120, end - size - 9, (end - 120) // 12)]
    reasons = [one.reason if isinstance(one, Rejected) else None for one in found]
    assert set(reasons) <= {Reason.TRUNCATED, None}
    # By chance, decoding may end where it should.
    assert reasons.count(None) <= len(reasons) // 20, reasons


@pytest.mark.parametrize("size", [80, 512])
@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"quality": 20}])
def test_a_hole_of_zeros_in_an_avif_is_truncated(options: dict[str, Any], size: int) -> None:
    content = saved(photo(1), "AVIF", **options)
    for at in range(content.index(b"mdat") + 40, len(content) - size, len(content) // 12):
        assert bad(with_hole(content, at, size)).reason == Reason.TRUNCATED


def test_a_hole_in_the_transparency_of_an_avif_is_truncated() -> None:
    source = photo(2)
    source.putalpha(photo(3).convert("L"))
    content = saved(source, "AVIF")
    good(content)
    # One of the two lies first.
    for at in (content.index(b"mdat") + 40, len(content) - 120):
        assert "zero bytes stand" in bad(with_hole(content, at, 100)).message


@pytest.mark.parametrize("tile", [2, 3])
def test_a_hole_in_a_tile_of_an_avif_is_truncated(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    header = Container(primary=1, references={(b"dimg", 1): [2, 3]}, items={4: Item(4, content=bytes(100))})
    monkeypatch.setattr("orchard_jobs.images.formats.avif.read_container", lambda content: header)
    good(saved(photo(1), "AVIF"))
    header.items[tile] = Item(tile, content=bytes(100))
    assert "zero bytes stand" in bad(saved(photo(1), "AVIF")).message


@pytest.mark.parametrize("what", DRAWN)
@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_a_drawn_picture_may_have_many_zeros(kind: str, what: str) -> None:
    image = Image.fromarray(DRAWN[what].astype(np.uint8)).convert("RGB")
    qualities: list[dict[str, Any]] = [{"quality": quality} for quality in (1, 50, 100)]
    qualities += [{"quality": 100, "method": 0}, {"lossless": True}] if kind == "WEBP" else [{"speed": 10}]
    contents = [saved(image, kind, **({"speed": 8} if kind == "AVIF" else {}) | options) for options in qualities]
    for content in contents:
        good(content, side=8)
    if (kind, what) == ("WEBP", "flat"):
        assert any(bytes(200) in content for content in contents)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_zeros_in_metadata_are_no_hole(kind: str) -> None:
    content = saved(photo(1), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(600), xmp=bytes(600))
    assert bytes(600) in content
    np.testing.assert_array_equal(good(content).squares[0], good(saved(photo(1), kind)).squares[0])


def test_an_avif_whose_boxes_are_damaged_is_no_picture() -> None:
    content = saved(photo(1), "AVIF")
    for broken in (content.replace(b"iloc", b"xloc"), content[: len(content) // 2]):
        assert bad(broken).reason in (Reason.TRUNCATED, Reason.UNSUPPORTED)
