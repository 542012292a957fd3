"""Read a format with Pillow's reader of that format and no other."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.exif import orientation_of
from orchard_jobs.images.formats.isobmff import ByteReader
from orchard_jobs.images.formats.picture import Fault, Limits, Picture, check_parts
from orchard_jobs.images.formats.signatures import Format

_AS_THEY_ARE = {"L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "LAB"}
# Where a block of data ends, and an extension follows; there are few by chance.
_EXTENSION = b"\0!"
_FILE_HEADER, _DIB_HEADER, _RUN_LENGTHS = 14, 40, (1, 2)
# A run of two bytes costs as much as so many samples elsewhere, and so does a pixel of 4 bits.
_SAMPLES_A_RUN, _SAMPLES_A_PIXEL = 80, 10
# Methods of a JP2's colour box: a profile of shades or of matrices, any profile.
_WITH_PROFILE = (2, 3)


def read_stock(content: bytes, kind: Format, limits: Limits) -> Picture:
    """Return the picture of a GIF, BMP, JPEG 2000 or TGA file."""
    if kind == Format.GIF:
        check_parts(content.count(_EXTENSION), "the blocks of a GIF")
    elif kind == Format.BMP:
        check_runs(content[_FILE_HEADER:][:_DIB_HEADER], len(content), limits)
    profile = _jpeg_2000_profile(content) if kind == Format.JPEG2000 else None
    return picture_of(load_with(content, kind, limits), profile)


def check_runs(header: bytes, size: int, limits: Limits) -> None:
    """Raise Fault where a bitmap has more runs than can be read in time; Pillow reads them one by one in Python.

    Args:
        header: of the bitmap, without that of the file.
        size: bytes of all of it.
        limits: the limit on samples.
    """
    if len(header) < _DIB_HEADER or header[16] not in _RUN_LENGTHS:
        return
    width, height = struct.unpack("<ii", header[4:12])
    limits.check_work(size * _SAMPLES_A_RUN // 2 + abs(width * height) * _SAMPLES_A_PIXEL, "the runs of a bitmap")


def picture_of(image: Image.Image, profile: bytes | None = None) -> Picture:
    """Return what Pillow has loaded; the profile is of a file whose profile Pillow does not read."""
    return Picture(eight_bits(image), orientation_of(image.info.get("exif")), image.info.get("icc_profile") or profile)


def _jpeg_2000_profile(content: bytes) -> bytes | None:
    """Return the colour profile that a JP2's header holds (ISO/IEC 15444-1, I.5.3.3), which Pillow does not read."""
    try:
        for kind, header in ByteReader(content).boxes() if content[4:8] == b"jP  " else ():
            for name, colours in header.boxes() if kind == b"jp2h" else ():
                if name == b"colr" and colours.take(3)[0] in _WITH_PROFILE:
                    return colours.take(colours.end - colours.place)
    except Fault as fault:
        if fault.reason == Reason.TOO_COSTLY:
            raise
    return None  # also of a header that is cut short


def load_with(content: bytes, kind: str, limits: Limits, raw_mode: str | None = None) -> Image.Image:
    """Return a loaded image.

    Args:
        content: the whole file.
        kind: Pillow's name of the one format that is tried.
        limits: judged from the header, and once more from what was read.
        raw_mode: how the samples lie, where it is not as the header says.

    Raises:
        Fault: over the pixel limit.
        Exception: nearly any, on broken bytes.
    """
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, limits.pixels)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    image = Image.open(io.BytesIO(content), formats=[kind])
    limits.check_size(image.width, image.height)
    if raw_mode is not None:
        tiles: Any = image
        tiles.tile = [tile._replace(args=raw_mode) for tile in tiles.tile]
    image.load()
    limits.check_size(image.width, image.height)
    return image


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits a sample: of 16 the high byte, palettes as their colours, a colour key as alpha."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data and image.mode not in _AS_THEY_ARE - {"L", "RGB"}:
        return image.convert("RGBA")
    if image.mode in _AS_THEY_ARE:
        return image
    try:
        return image.convert("L" if image.mode == "1" else "RGB")
    except (ValueError, KeyError) as error:
        raise Fault(Reason.UNSUPPORTED, f"no conversion from {image.mode} to RGB") from error
