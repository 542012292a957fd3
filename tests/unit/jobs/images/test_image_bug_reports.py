"""Decoding: files that people reported, each with its right value or reason. Skipped where the files are not there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from support.pictures import bad, good

_WHITE, _TILE = (255, 255, 255), (200, 10, 20)
GOOD = {
    "f32_zlib_be.tif": (51, 51, 51),
    "i16_lzw_be.tif": (48, 48, 48),
    "f32_none_be.tif": (51, 51, 51),
    "tiff_gray12.tif": (128, 128, 128),
    "u16white_none_le.tif": _WHITE,
    "u8white_none_le.tif": _WHITE,
    "tiff_pal_8bitmap.tif": _TILE,
    "png_rgb16_trns.png": _WHITE,
    "png_gray16_trns.png": _WHITE,
    "png_gray2_trns.png": _WHITE,
    "png_gray8_trns.png": _WHITE,
    "png_iccp_2mb.png": _TILE,
    "png_itxt_2mb.png": _TILE,
    "png_ztxt_badmethod.png": _TILE,
    "png_iccp_garbage.png": _TILE,
}
BAD = {
    "jpeg_cut_eoi.jpg": (Reason.TRUNCATED, "premature end"),
    "jpeg_crlf.jpg": (Reason.TRUNCATED, "transferred as text"),
    "jpeg_zero_tail.jpg": (Reason.TRUNCATED, "zero bytes stand"),
    "jpeg_prog_first_scan_eoi.jpg": (Reason.TRUNCATED, "coefficient"),
    "jpeg_noeoi.jpg": (Reason.TRUNCATED, "ends within a scan"),
    "jxl_code.jxl": (Reason.UNSUPPORTED, "JPEG XL"),
    "exr.exr": (Reason.UNSUPPORTED, "OpenEXR"),
    "heic_heif.heif": (Reason.UNSUPPORTED, "without a primary picture"),
    "dicom.dcm": (Reason.UNSUPPORTED, "DICOM"),
    "tiff_jpeg2000.tif": (Reason.UNSUPPORTED, "JPEG 2000"),
    "tiff_lerc.tif": (Reason.UNSUPPORTED, "LERC"),
    "png_cgbi.png": (Reason.UNSUPPORTED, "CgBI"),
    "tiff_big_cuthead.tif": (Reason.TRUNCATED, "within its directory"),
    "junk_csv_P2.txt": (Reason.NOT_AN_IMAGE, "P2 Apple"),
    "junk_csv_BM.csv": (Reason.NOT_AN_IMAGE, "BM-1"),
    "junk_text_GIF8": (Reason.NOT_AN_IMAGE, "GIF89a"),
}
BOMBS = {
    "eps.bin": Reason.UNSUPPORTED,
    "iptc_eps.bin": Reason.UNSUPPORTED,
    "iptc_nested.bin": Reason.UNSUPPORTED,
    "iptc_png_l_small.bin": Reason.UNSUPPORTED,
    "jpeg_200.bin": Reason.TOO_COSTLY,
    "png_rgba16_50.bin": "good",
    "tiff_i50_stretch.bin": "unsupported mode or format",
    "tiff_tile_1600m.bin": Reason.TOO_COSTLY,
    "webp_50.bin": "good",
}
DECODE_EACH = """
import json, resource, sys
from pathlib import Path
from orchard_jobs.images.decode import Decoded, decode
verdicts = {}
for file in map(Path, sys.argv[1:]):
    found = decode(file.read_bytes(), 50_000_000, 224)
    verdicts[file.name] = "good" if isinstance(found, Decoded) else found.reason
print(json.dumps(verdicts))
"""


@pytest.mark.parametrize("name", GOOD)
def test_a_reported_picture_has_its_right_colour(shared_data: Path, name: str) -> None:
    pixels = good((shared_data / "bug_reports" / name).read_bytes()).squares[0]
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.array(GOOD[name], np.uint8), pixels.shape))


@pytest.mark.parametrize("name", BAD)
def test_a_reported_file_has_its_right_reason(shared_data: Path, name: str) -> None:
    found = bad((shared_data / "bug_reports" / name).read_bytes())
    assert found.reason == BAD[name][0]
    assert BAD[name][1] in found.message


def test_a_float_beyond_white_does_not_darken_its_picture(shared_data: Path) -> None:
    pixels = good((shared_data / "bug_reports" / "tiff_float_overshoot.tif").read_bytes()).squares[0]
    assert np.median(pixels) == 128


@pytest.mark.parametrize(("name", "size"), [("xmp_orientation.jpg", (60, 40)), ("exif_cut_tag_le.jpg", (40, 60))])
def test_a_reported_picture_is_turned_by_exif_alone(shared_data: Path, name: str, size: tuple[int, int]) -> None:
    found = good((shared_data / "bug_reports" / name).read_bytes())
    assert (found.width, found.height) == size


def test_every_reported_file_is_a_test(shared_data: Path) -> None:
    told = {line.split(",")[0] for line in (shared_data / "bug_reports" / "manifest.csv").read_text().splitlines()[1:]}
    assert told == {*GOOD, *BAD, "tiff_float_overshoot.tif", "xmp_orientation.jpg", "exif_cut_tag_le.jpg"}


def test_bombs_end_in_a_verdict_within_memory_and_time(shared_data: Path) -> None:
    files = sorted((shared_data / "bug_reports" / "bombs").iterdir())
    limits = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000,) * 2);"
    limits += "resource.setrlimit(resource.RLIMIT_CPU, (40, 40))\n"
    command = [sys.executable, "-c", limits + DECODE_EACH, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {file.name: BOMBS[file.name] for file in files}
