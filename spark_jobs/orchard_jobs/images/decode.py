"""Bytes of an image file to the backbone's square of RGB pixels, or the reason why not. Knows no storage and no network.

Good means that the whole first frame is there. The order is fixed, since it decides pixels:

1. The format follows from the first bytes (`formats.signatures`); what is not on the list of formats is not parsed.
2. The header is judged: pixels, and what decoding would cost (`formats.picture.Limits`).
3. The first frame is decoded to 8 bits a sample, a large JPEG at a smaller scale (`formats.picture.Limits.reduction`); how odd
   samples are read stands in each reader.
4. EXIF's orientation is applied, or that of HEIC's own boxes.
5. Transparency of any kind (alpha, palette entries, a colour key) is laid over white.
6. Each view of the image is resized to the square, in its own colours, with Pillow's bicubic filter, after the mean of blocks of
   pixels where it is still large. The usual view is the whole image, of which nothing is cropped.
7. Each square is converted to sRGB, by the embedded colour profile if there is one.
"""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import WHOLE, Box, Views, side_of_whole
from orchard_jobs.images.colour import to_srgb
from orchard_jobs.images.formats.avif import read_avif
from orchard_jobs.images.formats.heic import read_heic
from orchard_jobs.images.formats.icon import read_icon
from orchard_jobs.images.formats.jpeg import read_jpeg
from orchard_jobs.images.formats.picture import SIDES_KEPT, Fault, Limits, Picture
from orchard_jobs.images.formats.png import read_png
from orchard_jobs.images.formats.ppm import read_ppm
from orchard_jobs.images.formats.signatures import Format, format_of
from orchard_jobs.images.formats.stock import read_stock
from orchard_jobs.images.formats.tiff import read_tiff
from orchard_jobs.images.formats.webp import read_webp

_READERS = {
    Format.JPEG: read_jpeg,
    Format.PNG: read_png,
    Format.TIFF: read_tiff,
    Format.ICO: read_icon,
    Format.PPM: read_ppm,
    Format.HEIC: read_heic,
    Format.WEBP: read_webp,
    Format.AVIF: read_avif,
}
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Turned so, what was the right or the lower edge is the left or the upper one.
_RIGHT_TO_LEFT, _BOTTOM_TO_TOP = {2, 3, 6, 7}, {3, 4, 7, 8}
# So much is laid over white at once, to hold no third copy of a large picture.
_STRIP_ROWS = 64
_UNSUPPORTED_WORDS = re.compile(
    r"not (available|installed|supported|implemented)|unsupported|unknown|unrecognized image|cannot (handle|find loader)",
    re.IGNORECASE,
)
_PIXELS = re.compile(r"\d+")
_ADDRESS = re.compile(r"<?\S+ object at 0x[0-9a-f]+>?| at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Decoded:
    """A good image.

    Attributes:
        squares: uint8 RGB [views, input_pixels, input_pixels, 3].
        width: pixels of the whole picture, after EXIF rotation.
        height: likewise.
    """

    squares: NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True)
class Rejected:
    """A bad image: why, and the decoder's words, equal for equal bytes."""

    reason: Reason
    message: str


def decode(content: bytes, pixel_limit: int, input_pixels: int, views: Views = WHOLE) -> Decoded | Rejected:
    """Decode one image, or say why it cannot be; never raises for a bad image. Safe to call from many threads at once.

    Args:
        content: the whole file.
        pixel_limit: width x height above which the image is rejected, judged from the header.
        input_pixels: side of the square that the backbone takes.
        views: the parts of the picture that each fill such a square.
    """
    if not content:
        return Rejected(Reason.EMPTY, "the object has no bytes")
    with _quiet_pillow():
        try:
            limits = Limits(pixel_limit, square=side_of_whole(views, input_pixels))
            return _squared(_read(content, limits), input_pixels, views)
        except Fault as fault:
            return Rejected(fault.reason, str(fault))
        except Image.DecompressionBombError as error:
            return Rejected(Reason.OVER_PIXEL_LIMIT, f"{_PIXELS.findall(str(error))[0]} pixels, the limit is {pixel_limit}")
        except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
            return _broken(error)


def _read(content: bytes, limits: Limits) -> Picture:
    kind = format_of(content)
    reader = _READERS.get(kind)
    return reader(content, limits) if reader else read_stock(content, kind, limits)


def _squared(picture: Picture, input_pixels: int, views: Views) -> Decoded:
    method = _ORIENTATIONS.get(picture.orientation)
    upright = picture.image if method is None else picture.image.transpose(method)
    opaque = _over_white(upright) if upright.mode[-1] in "aA" else upright
    width, height = picture.size[::-1] if picture.orientation >= 5 else picture.size
    box = _box(upright.size, (width / picture.reduction, height / picture.reduction), picture.orientation)
    size, bicubic = (input_pixels, input_pixels), Image.Resampling.BICUBIC
    squares = [opaque.resize(size, bicubic, view.within(box), reducing_gap=SIDES_KEPT) for view in views]
    return Decoded(np.stack([np.asarray(to_srgb(square, picture.profile)) for square in squares]), width, height)


def _box(size: tuple[int, int], filled: tuple[float, float], orientation: int) -> Box:
    """Return the part that a picture fills of its image: the last row and column of a reduced one may lie partly beyond it."""
    left = size[0] - filled[0] if orientation in _RIGHT_TO_LEFT else 0.0
    top = size[1] - filled[1] if orientation in _BOTTOM_TO_TOP else 0.0
    return left, top, left + filled[0], top + filled[1]


def _over_white(image: Image.Image) -> Image.Image:
    mode = image.mode[:-1]
    opaque = Image.new(mode, image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))
        straight = strip.convert("LA") if strip.mode == "La" else strip
        layer = straight.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        opaque.paste(Image.alpha_composite(white, layer).convert(mode), (0, top))
    return opaque


def _broken(error: Exception) -> Rejected:
    words = _words(error)
    if isinstance(error, MemoryError):
        return Rejected(Reason.TOO_COSTLY, words)
    if isinstance(error, NotImplementedError) or _UNSUPPORTED_WORDS.search(words):
        return Rejected(Reason.UNSUPPORTED, words)
    return Rejected(Reason.TRUNCATED, words)


def _words(error: Exception) -> str:
    # A message must be equal for equal bytes: an object's address is not.
    text = _ADDRESS.sub("the image", str(error)).strip()
    # What the decoder says of the file, or what its code stumbled on.
    says_it = text and isinstance(error, OSError | SyntaxError | EOFError | NotImplementedError)
    return text if says_it else f"the decoder failed: {type(error).__name__}{': ' if text else ''}{text}"


_quiet_lock = threading.Lock()
_quiet: dict[str, Any] = {"decoders": 0, "filters": None}


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    # Pillow warns of harmless oddities (EXIF cut short); under `-W error` that would make a good image a bad one.
    # catch_warnings alone is not safe between threads, so the first decoder in saves the filters and the last one out
    # restores them.
    with _quiet_lock:
        if _quiet["decoders"] == 0:
            _quiet["filters"] = warnings.catch_warnings()
            _quiet["filters"].__enter__()
            warnings.simplefilter("ignore")
        _quiet["decoders"] += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet["decoders"] -= 1
            if _quiet["decoders"] == 0:
                _quiet["filters"].__exit__(None, None, None)
