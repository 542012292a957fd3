"""Decoding: every broken kind of picture is set aside with a reason and stable words."""

import random
import re
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Decoded, Rejected, decode
from PIL import Image, ImageFile
from support.pictures import LIMIT, bad, chunk, good, picture, saved


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
    assert bad(b"\x89HDF\r\n\x1a\n" + b"\0" * 600).reason == Reason.UNSUPPORTED
    eps = saved(picture(), "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was started"))
    assert bad(eps).reason == Reason.UNSUPPORTED
    palette = saved(picture().quantize(8), "PNG")
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: int("conversion from P to RGB not supported"))
    assert bad(palette).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (MemoryError(), Reason.TOO_COSTLY, "the decoder failed: MemoryError"),
        (OSError("decoder jpeg not available"), Reason.UNSUPPORTED, "decoder jpeg not available"),
        (NotImplementedError("mode"), Reason.UNSUPPORTED, "mode"),
        (OSError("image file is truncated (8 bytes)"), Reason.TRUNCATED, "image file is truncated (8 bytes)"),
        (AssertionError(), Reason.TRUNCATED, "the decoder failed: AssertionError"),
        (RecursionError("too deep"), Reason.TRUNCATED, "the decoder failed: RecursionError: too deep"),
        (ValueError("bad <_io.BytesIO object at 0x7f12ab>"), Reason.TRUNCATED, "the decoder failed: ValueError: bad the image"),
    ],
)
def test_any_exception_of_a_decoder_becomes_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason, message: str
) -> None:
    def fail(self: Any) -> None:
        raise error

    content = saved(picture(), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert bad(content) == Rejected(reason, message)


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
        np.testing.assert_array_equal(found.squares[0], good(content).squares[0])
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
