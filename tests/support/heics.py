"""HEIC files: by the encoder that the tests alone install, and their boxes by hand."""

import io
import struct
from typing import Any

import pillow_heif
from PIL import Image

# x265 starts no threads, so that small pictures take no time.
_FAST = {"preset": "ultrafast", "x265:pools": "none", "x265:frame-threads": "1"}


def heic(image: Image.Image, **options: Any) -> bytes:
    """An image as HEVC, by default as phones store it; `tile_size` makes a grid."""
    file = io.BytesIO()
    parameters = _FAST | options.pop("enc_params", {})
    pillow_heif.from_pillow(image).save(file, enc_params=parameters, **({"quality": 90} | options))
    return file.getvalue()


def turned_heic(image: Image.Image, orientation: int) -> bytes:
    """A picture that its boxes turn, and whose EXIF says the same, as phones write it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    pillow_heif.register_heif_opener()
    image.save(file, "HEIF", exif=exif.tobytes(), quality=90, enc_params=dict(_FAST))
    return file.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def branded(content: bytes, major: bytes, *others: bytes) -> bytes:
    """A file under other brands, its places as they were."""
    size = int.from_bytes(content[:4], "big")
    brands = (major + bytes(4) + b"".join(others)).ljust(size - 8, b"\0")
    assert len(brands) == size - 8
    return content[:4] + b"ftyp" + brands + content[size:]


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """A file with one part of its boxes replaced by as many bytes."""
    assert content.count(old) >= 1
    assert len(old) == len(new)
    return content.replace(old, new)
