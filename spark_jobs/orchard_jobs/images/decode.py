"""Bytes of an image file to the backbone's square of RGB pixels, or the reason why not. Knows no storage and no network.

Good means that strict Pillow decodes the whole first frame. What is odd but whole is converted by one rule a kind:

- EXIF orientation (TIFF, PNG and WebP carry it as well) is applied before anything else; unreadable EXIF counts as none.
- Transparency of any kind (alpha, palette entries, a colour key) is laid over white.
- CMYK is Pillow's: always of Adobe's (inverted) polarity. Embedded colour profiles are not applied.
- 16-bit grayscale keeps its high byte, as Pillow's own readers do with 16-bit colour.
- 32-bit integers are 16-bit numbers when they all fit 0..65535; floats are shades of 0..1, or else of 0..255, when they
  all fit; any other values are stretched from their own least and greatest to 0..255.

The whole image is then resized to the square with Pillow's bicubic filter; nothing is cropped.
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from orchard_jobs.contract.quarantine import Reason

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF8",
    "TIFF": b"II*\x00",
    "TIFF (big-endian)": b"MM\x00*",
    "JPEG2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "ICNS": b"icns",
}
_NOT_BUILT_IN = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
# Pillow draws EPS by starting Ghostscript: a program from outside on bytes from outside.
_NOT_RUN = {"EPS"}
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
        pixels: uint8 RGB [input_pixels, input_pixels, 3].
        width: pixels, after EXIF rotation, before resizing.
        height: likewise.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True)
class Rejected:
    """A bad image: why, and the decoder's words, equal for equal bytes."""

    reason: Reason
    message: str


class _Unsupported(Exception):
    """Whole, but without a defined way to RGB."""


def decode(content: bytes, pixel_limit: int, input_pixels: int) -> Decoded | Rejected:
    """Decode one image, or say why it cannot be; never raises for a bad image. Safe to call from many threads at once.

    Args:
        content: the whole file.
        pixel_limit: width x height above which the image is rejected, judged from the header.
        input_pixels: side of the square that the backbone takes.
    """
    if not content:
        return Rejected(Reason.EMPTY, "the object has no bytes")
    with _quiet_pillow():
        try:
            return _decode(content, pixel_limit, input_pixels)
        except _Unsupported as error:
            return Rejected(Reason.UNSUPPORTED, str(error))
        except Image.DecompressionBombError as error:
            return _over_limit(int(next(_PIXELS.finditer(str(error)))[0]), pixel_limit)
        except UnidentifiedImageError:
            return _unidentified(content)
        except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
            return _broken(error)


def _decode(content: bytes, pixel_limit: int, input_pixels: int) -> Decoded | Rejected:
    _set_pillow_limits(pixel_limit)
    with Image.open(io.BytesIO(content)) as image:
        if image.format in _NOT_RUN:
            return Rejected(Reason.UNSUPPORTED, f"{image.format} needs an outside program, which is not run")
        # An icon's directory may understate the picture inside, so the size is judged again once it is read.
        for is_loaded in (False, True):
            if is_loaded:
                image.load()
            if image.width * image.height > pixel_limit:
                return _over_limit(image.width * image.height, pixel_limit)
        upright = _upright(image)
        rgb = _to_rgb(upright)
        square = rgb.resize((input_pixels, input_pixels), Image.Resampling.BICUBIC)
        return Decoded(np.asarray(square), upright.width, upright.height)


def _over_limit(pixels: int, pixel_limit: int) -> Rejected:
    return Rejected(Reason.OVER_PIXEL_LIMIT, f"{pixels} pixels, the limit is {pixel_limit}")


def _set_pillow_limits(pixel_limit: int) -> None:
    # Global in Pillow. It refuses above twice its number, so as the greatest limit seen it only guards pictures inside
    # pictures and never refuses what `pixel_limit` admits.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, pixel_limit)
    ImageFile.LOAD_TRUNCATED_IMAGES = False


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF is a second file inside the file: broken, it says nothing about the picture
        return image
    method = _ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(image)).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return _convert(image, "RGB")


def _to_bytes(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise _Unsupported(f"pixels of mode {image.mode} that are not finite numbers")
    if image.mode != "F" and low >= 0 and high <= 65535:
        return (values >> 8).astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 255:
        return np.rint(values * (255.0 if high <= 1 else 1.0)).astype(np.uint8)
    span = float(high) - float(low)
    return np.rint((values.astype(np.float64) - float(low)) * (255.0 / span if span else 0.0)).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    layers = _convert(image, "LA") if image.mode == "La" else image
    picture = _convert(layers, "RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except (ValueError, KeyError) as error:
        raise _Unsupported(f"no conversion from {image.mode} to {mode}: {_words(error)}") from error


def _unidentified(content: bytes) -> Rejected:
    for name, signature in _SIGNATURES.items():
        if content.startswith(signature) or (len(content) > 1 and signature.startswith(content)):
            return _broken(_why_refused(name, content))
    if (content[:4], content[8:12]) == (b"RIFF", b"WEBP") or content[4:12] in (b"ftypavif", b"ftypavis"):
        return Rejected(Reason.TRUNCATED, "a WebP or AVIF file without a whole header")
    if content[4:8] == b"ftyp" and content[8:12] in _NOT_BUILT_IN:
        return Rejected(Reason.UNSUPPORTED, "a HEIF file, which this build of Pillow cannot read")
    return Rejected(Reason.NOT_AN_IMAGE, f"no decoder recognises the {len(content)} bytes, which begin with {content[:16]!r}")


def _why_refused(name: str, content: bytes) -> Exception:
    """Return what the format's own reader says, which `Image.open` keeps to itself."""
    try:
        Image.OPEN[name.partition(" ")[0]][0](io.BytesIO(content), "")
    except Exception as error:
        return error
    return SyntaxError(f"a {name} file without a whole header")


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
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
