"""Read a format with Pillow's reader of that format and no other."""

import io
import re
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.exif import orientation_of
from orchard_jobs.images.formats.isobmff import ByteReader
from orchard_jobs.images.formats.picture import Fault, Limits, Picture
from orchard_jobs.images.formats.signatures import Format, is_text, not_an_image

_AS_THEY_ARE = {"L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "LAB"}
_PLAIN_PNM = re.compile(rb"P[123](?:\s|#[^\n]*\n)*[\d\s#]")
_PNM = re.compile(rb"P[4-6](?:\s|#[^\n]*\n)*[\d#]")
_NUMBER = rb"(?:\s|#[^\n]*\n)+(\d{1,10})"
_BITMAP, _SHADES = re.compile(rb"P." + 2 * _NUMBER + rb"\s"), re.compile(rb"P." + 3 * _NUMBER + rb"\s")
_COMMENT = re.compile(rb"#[^\n]*")
# Methods of a JP2's colour box: a profile of shades or of matrices, any profile.
_WITH_PROFILE = (2, 3)
_NO_NUMBER = re.compile(rb"[^\d\s]")

# One thread a picture: the workers share the cores among pictures.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def read_stock(content: bytes, kind: Format, limits: Limits) -> Picture:
    """Return the picture of a WebP, GIF, BMP, AVIF, JPEG 2000 or TGA file."""
    if kind == Format.AVIF and content[8:12] == b"mif1":
        # The library asks for its own brand, where the primary picture has already said it.
        content = content[:8] + b"avif" + content[12:]
    image = load_with(content, kind, limits)
    profile = image.info.get("icc_profile") or (_jpeg_2000_profile(content) if kind == Format.JPEG2000 else None)
    return Picture(eight_bits(image), orientation_of(image.info.get("exif")), profile)


def _jpeg_2000_profile(content: bytes) -> bytes | None:
    """Return the colour profile that a JP2's header holds (ISO/IEC 15444-1, I.5.3.3), which Pillow does not read."""
    with suppress(Fault):  # a header that is cut short holds none
        for kind, header in ByteReader(content).boxes() if content[4:8] == b"jP  " else ():
            for name, colours in header.boxes() if kind == b"jp2h" else ():
                if name == b"colr" and colours.take(3)[0] in _WITH_PROFILE:
                    return colours.take(colours.end - colours.place)
    return None


def read_ppm(content: bytes, limits: Limits) -> Picture:
    """Return the picture of a PBM, PGM or PPM file, whose signature plain text may begin with, too."""
    is_plain = content[1:2] in b"123"
    header = (_PLAIN_PNM if is_plain else _PNM).match(content)
    numbers = _COMMENT.sub(b"", content[2:]) if is_plain else b""
    if header is None or _NO_NUMBER.search(numbers):
        raise not_an_image(content)
    # Text may go on with numbers by chance, but not for exactly as long as the picture of that size.
    if not is_plain and is_text(content) and not _is_exact(content):
        raise not_an_image(content)
    return read_stock(content, Format.PPM, limits)


def _is_exact(content: bytes) -> bool:
    header = (_BITMAP if content.startswith(b"P4") else _SHADES).match(content)
    if header is None:
        return False
    width, height, *greatest = (int(number) for number in header.groups())
    samples = width * (3 if content.startswith(b"P6") else 1)
    row = samples * (1 if greatest[0] < 256 else 2) if greatest else -(-width // 8)
    return len(content) == header.end() + row * height


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
