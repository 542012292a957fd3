"""Decoding PBM, PGM and PPM: packed or written out, of any greatest sample, with comments anywhere."""

import io

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from PIL import Image
from support.pictures import LIMIT, bad, good, resized

SAMPLES = np.random.default_rng(7).integers(0, 256, 9 * 7 * 3)


def written(kind: int, greatest: int) -> bytes:
    """A picture of 9 x 7 pixels."""
    samples = SAMPLES[: 63 * (3 if kind in (3, 6) else 1)] * greatest // 255
    if kind == 4:
        packed = np.packbits(samples.astype(np.uint8).reshape(7, 9), axis=1).tobytes()
    elif kind < 4:
        packed = ("" if kind == 1 else " ").join(str(one) for one in samples).encode()
    else:
        packed = samples.astype("u1" if greatest < 256 else ">u2").tobytes()
    return b"P%d\n# a comment\n9 7\n%s" % (kind, b"" if kind in (1, 4) else b"%d\n" % greatest) + packed


def as_pillow_shows(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    if image.mode == "I" or image.mode.startswith("I;"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


@pytest.mark.parametrize("kind", [2, 3, 5, 6])
@pytest.mark.parametrize("greatest", [1, 7, 100, 254, 255, 256, 1000, 4095, 65535])
def test_samples_of_any_range_are_those_that_pillow_reads(kind: int, greatest: int) -> None:
    content = written(kind, greatest)
    np.testing.assert_array_equal(good(content).squares[0], resized(as_pillow_shows(content)))


@pytest.mark.parametrize("kind", [1, 4])
def test_bitmaps_are_those_that_pillow_reads(kind: int) -> None:
    content = written(kind, 1)
    np.testing.assert_array_equal(good(content).squares[0], resized(as_pillow_shows(content)))


@pytest.mark.parametrize(("kind", "greatest"), [(1, 1), (2, 255), (3, 9), (4, 1), (5, 255), (5, 9999), (6, 255)])
def test_a_sample_that_is_missing_is_truncated(kind: int, greatest: int) -> None:
    content = written(kind, greatest)
    assert bad(content.rstrip(b"0123456789") if kind in (2, 3) else content[:-1]).reason == Reason.TRUNCATED


@pytest.mark.parametrize(
    "content",
    [b"P2 2 1 9 10 3", b"P1 2 1 12", b"P2 1 1 255 99999999999", b"P5 1 1 0 \xff", b"P5 1 1 65536 \xff\xff", b"P6 3 3 \0"],
)
def test_samples_and_headers_without_sense_are_truncated(content: bytes) -> None:
    assert bad(content).reason == Reason.TRUNCATED


def test_a_sample_above_the_greatest_of_a_packed_picture_is_white() -> None:
    assert good(b"P5 2 1 100 " + bytes([100, 200])).squares[0].min() == 255


def test_comments_may_stand_among_numbers() -> None:
    plain = good(b"P2 3 1 255\n10 20 30\n").squares[0]
    for content in (b"P2 #a\n#b\r3 1 #c\n255\n10 #20\n20 # 7\n30", b"P2\n3 1\n255\n10\t20\r\n30 40 50"):
        np.testing.assert_array_equal(good(content).squares[0], plain)


def test_numbers_are_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (written(3, 255), b"P2 3 1 255" + b" " * 60 + b"\n10 20" + b" " * 200 + b"30"):
        expected = good(content).squares[0]
        for size in (12, 13, 50):
            with monkeypatch.context() as patch:
                patch.setattr("orchard_jobs.images.formats.ppm._PIECE_BYTES", size)
                np.testing.assert_array_equal(good(content).squares[0], expected)


def test_the_pixel_limit_is_judged_from_the_header() -> None:
    assert bad(b"P5 90000 90000 255\n\0", LIMIT).reason == Reason.OVER_PIXEL_LIMIT
