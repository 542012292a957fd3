"""Decoding: what a small header asks for is judged before it is done, in milliseconds and for the right reason."""

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.decode import Decoded, Rejected, decode
from orchard_jobs.images.formats.tiff_layout import JPEG, WEBP
from PIL import Image
from support.cpu import cpu_seconds
from support.heics import heic
from support.pictures import LIMIT, bad, bitmap, chunk, flat, good, picture, saved
from support.tiffs import DEFLATE, LZMA, LZW, NONE, PACKBITS, Form, tiff, with_places

RGB = np.asarray(picture(70, 50, seed=5))


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_one_huge_tile_or_strip_is_too_costly(kind: str, compression: int) -> None:
    tags = {322: [32768], 323: [16368]}
    assert bad(tiff(RGB.astype(kind), Form(compression=compression, tile=(80, 64), tags=tags))).reason == Reason.TOO_COSTLY


def test_many_samples_a_pixel_are_too_costly() -> None:
    tags = {256: [7000], 257: [7000], 277: [60], 258: [16] * 60, 339: [1] * 60}
    assert bad(tiff(RGB.astype("u2"), Form(tags=tags))).reason == Reason.TOO_COSTLY


def strips(count: int, width: int, compression: int, strip: bytes, body: bytes = b"", **tags: list[int]) -> bytes:
    """A TIFF of gray strips of one row, which all are one range of bytes; `t347` is another tag."""
    entries = {256: [width], 257: [count], 258: [8], 259: [compression], 262: [1], 277: [1], 278: [1]}
    entries |= {int(name[1:]): values for name, values in tags.items()}
    return with_places(entries, body or strip, (273, 279), [0] * count, [len(strip)] * count)


@pytest.mark.parametrize("compression", [LZW, DEFLATE, PACKBITS, LZMA, JPEG, WEBP])
def test_thousands_of_strips_in_one_range_are_too_costly(compression: int) -> None:
    with cpu_seconds(0.5):
        found = bad(strips(20_000, 1000, compression, b"\x80" * 10_000))
    assert (found.reason, "share" in found.message) == (Reason.TOO_COSTLY, True)


def test_what_the_pictures_in_all_strips_cost_counts_together() -> None:
    # Each is larger than its strip, but not by too much.
    inner = saved(Image.new("L", (1000, 66)), "JPEG", progressive=True)
    assert good(strips(10, 1000, JPEG, inner)).height == 10
    found = bad(strips(2000, 1000, JPEG, inner), limit=2_000_000)
    assert (found.reason, "pictures in strips" in found.message) == (Reason.TOO_COSTLY, True)


def test_more_strips_than_can_be_read_in_time_are_too_costly() -> None:
    found = bad(strips(60_000, 1, NONE, b"a"))
    assert (found.reason, "60000 strips or tiles" in found.message) == (Reason.TOO_COSTLY, True)


def test_strips_of_a_large_file_share_nothing() -> None:
    samples = np.zeros((4_200, 4_200), np.uint8)
    assert good(tiff(samples, Form(rows=100)), side=8).height == 4_200


def test_short_strips_of_group_4_are_not_coded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(1).random((160, 200)) < 0.05)
    coded: list[int] = []

    def code(rows: NDArray[np.bool_]) -> bytes:
        coded.append(len(rows))
        return b"other"

    monkeypatch.setattr("orchard_jobs.images.formats.group4._coded", code)
    for rows in (1, 2, 7):
        good(saved(image, "TIFF", compression="group4", tiffinfo={278: rows}))
    assert coded == []
    good(saved(image, "TIFF", compression="group4", tiffinfo={278: 8}))
    assert len(coded) == 20


def test_a_strip_may_walk_no_more_samples_than_fit_it() -> None:
    inner = saved(picture(300, 200).convert("L"), "JPEG", progressive=True)
    first = inner.index(b"\xff\xda")
    scans = inner[:first] + inner[first : inner.index(b"\xff\xc4", first)] * 100 + inner[first:]
    found = bad(strips(1, 100, JPEG, scans))
    assert (found.reason, "the scans walk" in found.message) == (Reason.TOO_COSTLY, True)


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, JPEG])
def test_tiles_far_larger_than_their_picture_are_too_costly(compression: int) -> None:
    tiles = 20_000
    entries = {256: [1], 257: [tiles], 258: [8], 259: [compression], 262: [1], 277: [1], 322: [1_000_000], 323: [1]}
    content = with_places(entries, zlib.compress(bytes(1_000_000)), (324, 325), [0] * tiles, [1000] * tiles)
    with cpu_seconds(0.5):
        found = bad(content)
    assert (found.reason, "1000000 x 1 pixels" in found.message) == (Reason.TOO_COSTLY, True)


def test_a_strip_for_each_of_many_rows_is_read() -> None:
    assert good(strips(20_000, 3, NONE, b"abc")).height == 20_000


@pytest.mark.parametrize(
    ("kind", "tag"), [("u2", tag) for tag in (258, 339, 273, 279, 332)] + [("u4", tag) for tag in (340, 341, 280, 281)]
)
def test_a_tag_of_20_million_values_costs_little(kind: str, tag: int) -> None:
    content = bytearray(tiff(RGB.astype(kind), Form(photometric=2, tags={tag: [16]})))
    at = content.index(struct.pack("<HH", tag, 4))
    content[at : at + 12] = struct.pack("<HHII", tag, 3, 20_000_000, len(content))
    content += struct.pack("<H", 16) * 20_000_000
    with cpu_seconds(0.25):
        decode(bytes(content), LIMIT, 32)


def test_tables_of_megabytes_are_not_put_before_each_strip() -> None:
    tables = b"\xff\xd8" + (b"\xff\xfe\xff\xff" + bytes(65533)) * 100 + b"\xff\xd9"
    content = strips(2_000, 10, JPEG, saved(picture(10, 2).convert("L"), "JPEG"), t347=[1] * 2)
    at = content.index(struct.pack("<HH", 347, 4))
    content = content[:at] + struct.pack("<HHII", 347, 7, len(tables), len(content)) + content[at + 12 :] + tables
    with cpu_seconds(1.0):
        decode(content, LIMIT, 32)


def test_a_directory_of_more_entries_than_tags_is_truncated() -> None:
    head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1_000_000)
    with cpu_seconds(0.2):
        found = bad(head + bytes(20_000_000))
    assert (found.reason, "1000000 entries" in found.message) == (Reason.TRUNCATED, True)


@pytest.mark.parametrize("inner", [bitmap(16, 32), saved(picture(16, 16), "PNG"), bytes(60)])
def test_an_icons_directory_of_65535_entries_costs_little(inner: bytes) -> None:
    # Each entry is the rest of the file.
    start, size = 6 + 16 * 65535, 2_000_000
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, size, start)
    with cpu_seconds(2.0):
        found = decode(struct.pack("<HHH", 0, 1, 65535) + entry * 65535 + inner.ljust(size, b"\0"), LIMIT, 224)
    assert isinstance(found, Decoded) or found.reason in (Reason.UNSUPPORTED, Reason.TRUNCATED)


@pytest.mark.parametrize("head", [b"P3 3000 3000 255\n", b"P1 3 3\n", b"P2\n"])
def test_a_ppm_of_comments_is_too_costly(head: bytes) -> None:
    with cpu_seconds(1.0):
        found = bad(head + b"#\n" * 8_000_000)
    assert found == Rejected(Reason.TOO_COSTLY, "PPM: 8000000 comments, the limit is 1000000")


@pytest.mark.parametrize("filler", [b"#" + b"x" * 100 + b"\n", b" ", b"\n"])
def test_a_ppm_with_a_long_header_costs_little(filler: bytes) -> None:
    with cpu_seconds(1.0):
        assert bad(b"P6 " + filler * 200_000 + b"2 2 255 " + bytes(12)).reason in (Reason.NOT_AN_IMAGE, Reason.TRUNCATED)


def test_a_packed_picture_of_an_odd_range_is_read_in_time() -> None:
    samples = np.random.default_rng(8).integers(0, 1001, 3 * 2_000_000, np.uint16)
    with cpu_seconds(1.0):
        good(b"P6 2000 1000 1000\n" + samples.astype(">u2").tobytes())


MANY = 100_001


def with_parts(content: bytes, at: int, part: bytes, count: int = MANY) -> bytes:
    longer = content[:at] + part * count + content[at:]
    return longer[:4] + struct.pack("<I", len(longer) - 8) + longer[8:] if longer.startswith(b"RIFF") else longer


def walked() -> dict[str, tuple[bytes, int, bytes]]:
    """Files, where more parts may stand in each, and a part."""
    source = picture(64, 48)
    gif, webp, jp2 = saved(source, "GIF"), saved(source, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"), saved(source, "JPEG2000")
    photo = heic(source)
    return {
        "segments of a JPEG": (saved(source, "JPEG"), 2, b"\xff\xfe\0\2"),
        "markers of a JPEG": (saved(source, "JPEG"), 2, b"\xff\x01"),
        "chunks of a PNG": (saved(source, "PNG"), 33, chunk(b"abCd", b"")),
        "blocks of a GIF": (gif, 13 + (3 << (gif[10] & 7) + 1), b"!\xfe\1x\0"),
        "chunks of a WebP": (webp, webp.index(b"VP8 "), b"abcd" + bytes(4)),
        "boxes of a HEIC": (photo, int.from_bytes(photo[:4], "big"), b"\0\0\0\x08free"),
        "boxes of a JP2": (jp2, jp2.index(b"jp2c") - 4, b"\0\0\0\x08free"),
    }


@pytest.mark.parametrize("what", walked())
def test_a_file_of_very_many_parts_is_too_costly(what: str) -> None:
    content, at, part = walked()[what]
    found = bad(with_parts(content, at, part))
    assert (found.reason, "more than 100000" in found.message) == (Reason.TOO_COSTLY, True)
    if "HEIC" not in what:  # whose places count from the file's begin
        good(with_parts(content, at, part, 1000))


def test_a_gif_of_many_frames_is_read() -> None:
    frames = [picture(8, 8, seed) for seed in range(300)]
    assert good(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])).width == 8


@pytest.mark.parametrize("run", [b"\xff\5", b"\1\5"])
@pytest.mark.parametrize("is_icon", [False, True])
def test_a_bitmap_of_very_many_runs_is_too_costly(is_icon: bool, run: bytes) -> None:
    def bitmap_of(runs: bytes) -> bytes:
        header = struct.pack("<IiiHHIIiiII", 40, 256, 512 if is_icon else 256, 1, 8, 1, len(runs), 0, 0, 256, 0)
        inner = header + bytes(1024) + runs
        if is_icon:
            return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 8, len(inner), 22) + inner
        return b"BM" + struct.pack("<IHHI", 14 + len(inner), 0, 0, 14 + 40 + 1024) + inner

    with cpu_seconds(0.5):
        found = bad(bitmap_of(run * 26_000_000))
    assert (found.reason, "runs of a bitmap" in found.message) == (Reason.TOO_COSTLY, True)
    if not is_icon:
        assert flat(bitmap_of((b"\xff\5\1\5\0\0") * 256 + b"\0\1")) == [0] * 3
