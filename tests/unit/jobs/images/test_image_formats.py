"""Decoding: a file's first bytes tell its format, and EXIF alone tells its orientation."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.exif import orientation_of
from PIL import Image
from support.pictures import bad, good, picture, saved

NAMED = {
    "JPEG XL": b"\xff\x0a" + bytes(60),
    "JPEG XL ": b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(60),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(60),
    "OpenEXR": b"v/1\x01\x02\0\0\0" + bytes(60),
    "DICOM": bytes(128) + b"DICM" + bytes(60),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n" + b"00ff" * 40,
    "EPS ": b"\xc5\xd0\xd3\xc6" + bytes(60),
    "IPTC": bytes.fromhex("1c033c000201001c03140002"),
    "Photoshop": b"8BPS\0\x01" + bytes(60),
    "ICNS": b"icns\0\0\x10\0" + bytes(60),
    "DDS": b"DDS |\0\0\0" + bytes(120),
    "CUR": struct.pack("<HHHBBBBHHII", 0, 2, 1, 16, 16, 0, 0, 0, 0, 40, 22) + bytes(60),
    "QOI": b"qoif" + bytes(20),
    "JPEG XS": b"\0\0\0\x0cJXS \r\n\x87\n" + bytes(60),
    "JBIG2": b"\x97JB2\r\n\x1a\n\x01" + bytes(60),
    "DPX": b"SDPX\0\0\x20\0V1.0" + bytes(60),
    "Cineon": b"\x80\x2a\x5f\xd7" + bytes(60),
    "KTX": b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(60),
    "EMF": b"\1\0\0\0\x6c".ljust(40, b"\0") + b" EMF" + bytes(60),
    "FLC": b"\0\x10\0\0\x12\xaf" + bytes(122),
    "IFF": b"FORM\0\0\x10\0ILBMBMHD" + bytes(60),
    "ANI": b"RIFF\0\x10\0\0ACONanih" + bytes(60),
    "NIfTI": b"\x5c\1\0\0".ljust(344, b"\0") + b"n+1\0" + bytes(60),
    "MRW": b"\0MRM\0\0\1\0\0PRD" + bytes(60),
    "NRRD": b"NRRD0004\ntype: uchar\ndimension: 2\n",
    "PAM": b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\ndd",
}
TEXTS = [
    b"P2 Apple Red\n",
    b"P5 is a road",
    b"P6\nfine art paper\n",
    b"P7 and P8 were lost\n",
    b"P3 1 2 apples",
    b"BM-1,BMW sample list\n1,2,3\n4,5,6\n",
    b"BMW",
    b"GIF89a is a form\n",
    b"GIF87a, GIF89a and what came after: a history of small pictures, told in many words",
    "BM — плод".encode(),
    b"II and MM are byte orders",
    b"RIFF, chord, WEBP",
    b"icon",
    b"icns,ico,png\n1,2,3\n",
    b"DDS is a texture format\n",
    b"GRIB data of the wind\n",
    b"8BPS is Photoshop's\n",
    b"PF\nplain text\n",
    b"xx: ftypheic is a brand",
    b"RIFF1234WEBP is a container of text",
    b"(begin)".ljust(128) + b"DICM is the magic text",
    b"GIF89a est un format de donn\xe9es\n" * 30,
    b"P4 2 3 text goes on\n",
    b"P6 2024 was good\xe9\n",
    b"SDPX, XPDS and DanM\n",
    b"FORM and ILBM, PBM \n",
    b"a letter".ljust(40) + b" EMF is a format",
]


@pytest.mark.parametrize("name", NAMED)
def test_a_format_that_is_not_read_is_named(name: str) -> None:
    found = bad(NAMED[name])
    assert found.reason == Reason.UNSUPPORTED
    assert name.strip() in found.message


@pytest.mark.parametrize("kind", ["PCX", "SGI", "MSP", "SPIDER", "PALM", "EPS", "PDF", "ICNS", "DDS", "BLP", "QOI"])
def test_formats_beyond_the_list_are_not_opened(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {
        "MSP": picture().convert("1"),
        "SPIDER": picture().convert("F"),
        "PALM": picture().convert("P"),
        "BLP": picture().convert("P"),
    }
    content = saved(source.get(kind, picture(64, 64)), kind)
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("Pillow was asked"))
    assert bad(content).reason in (Reason.UNSUPPORTED, Reason.NOT_AN_IMAGE)


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_begins_like_a_format_is_no_image(text: bytes) -> None:
    assert bad(text).reason == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("kind", ["PPM", "BMP", "GIF", "TGA"])
def test_a_picture_of_a_weak_signature_is_truncated_when_cut(kind: str) -> None:
    content = saved(picture(60, 40), kind)
    assert bad(content[: len(content) // 2]).reason == Reason.TRUNCATED


def test_plain_numbers_are_a_picture() -> None:
    assert good(b"P3 # colours\n2 1 # size\n255\n1 2 3 4 5 6\n").width == 2
    assert bad(b"P3 2 1 255\n1 2 3 4").reason == Reason.TRUNCATED


@pytest.mark.parametrize("content", [b"P4\n9 2\ndddd", b"P5 #a\n4 1 #b\n255\ndddd", b"P6 1 2 255\ndddddd", b"P5 2 1 65535\ndddd"])
def test_a_picture_whose_pixels_look_like_text_is_read(content: bytes) -> None:
    assert good(content).width in (9, 4, 1, 2)
    assert bad(content + b"d").reason == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("stray", [b"", b"abc", b"\xff", b"\r\n"])
@pytest.mark.parametrize("marker", [b"\xff\xfe", b"\xff\xe1", b"\xff\xef"])
@pytest.mark.parametrize("length", [0x2020, 0x7E41, 0xFFFF])
def test_a_jpeg_that_goes_on_with_a_page_of_text_is_read(length: int, marker: bytes, stray: bytes) -> None:
    content = saved(picture(), "JPEG")
    comment = marker + struct.pack(">H", length) + (b"A long comment. " * 5000)[: length - 2]
    found = good(content[:2] + stray + comment + content[2:])
    np.testing.assert_array_equal(found.squares[0], good(content).squares[0])


@pytest.mark.parametrize("head", [b"\x89P", b"II*", b"MM\0", b"GIF8", b"GIF89a", b"\xff\xd8", b"\0\0\0\x0cjP"])
def test_a_signature_cut_short_is_truncated(head: bytes) -> None:
    assert bad(head).reason == Reason.TRUNCATED


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_that_was_stored_as_utf_8_is_truncated(kind: str, encoding: str) -> None:
    found = bad(saved(picture(), kind).decode(encoding, "replace").encode())
    assert found.reason == Reason.TRUNCATED
    assert kind in found.message


def exif(order: str, entries: list[tuple[int, int, int, bytes]], count: int | None = None) -> bytes:
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries) if count is None else count)
    return b"Exif\0\0" + head + body


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_read_beside_a_tag_that_is_cut_short(kind: str, order: str) -> None:
    make = (0x010F, 2, 500, struct.pack(f"{order}I", 4000))
    turned = (0x0112, 3, 1, struct.pack(f"{order}HH", 6, 0))
    for entries in ([make, turned], [turned, make]):
        found = good(saved(picture(), kind, exif=exif(order, entries)))
        assert (found.width, found.height) == (20, 30)


@pytest.mark.parametrize(("value", "found"), [(0, 1), (1, 1), (8, 8), (9, 1), (65535, 1)])
def test_an_orientation_without_sense_is_upright(value: int, found: int) -> None:
    assert orientation_of(exif("<", [(0x0112, 3, 1, struct.pack("<HH", value, 0))])) == found


def test_a_directory_cut_short_is_read_as_far_as_it_goes() -> None:
    turned = (0x0112, 3, 1, struct.pack(">HH", 8, 0))
    assert orientation_of(exif(">", [turned], count=40)) == 8
    assert orientation_of(exif(">", [turned])[:-4]) == 1
    assert orientation_of(exif(">", [turned])[:-3]) == 1
    assert orientation_of(exif(">", [turned])[:-2]) == 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_does_not_turn_a_picture(kind: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    found = good(saved(picture(), kind, xmp=xmp))
    assert (found.width, found.height) == (30, 20)


def test_no_good_picture_of_the_samples_is_lost(shared_data: Path) -> None:
    photos = [line.split(",") for line in (shared_data / "manifest.csv").read_text().splitlines()[1:]]
    whole = [row[0] for row in photos if row[8] == "ok"]
    # All 10,291 take ten seconds of CPU.
    for path in whole[:: 1 if os.environ.get("SOAK_ALL_SAMPLES") else 60]:
        good((shared_data / path).read_bytes(), side=32)
