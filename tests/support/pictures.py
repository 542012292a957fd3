"""Pictures of every odd kind, and what the decoder makes of one."""

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from orchard_jobs.images.decode import Decoded, Rejected, decode
from PIL import Image

LIMIT = 50_000_000


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 30, height: int = 20, seed: int = 1) -> Image.Image:
    """A picture of 2 x 2 blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(2, axis=0).repeat(2, axis=1))


def resized(rgb: Image.Image, side: int = 224) -> NDArray[np.uint8]:
    return np.asarray(rgb.resize((side, side), Image.Resampling.BICUBIC))


def good(content: bytes, side: int = 224) -> Decoded:
    found = decode(content, LIMIT, side)
    assert isinstance(found, Decoded), found
    assert found.squares.dtype == np.uint8
    assert found.squares.shape == (1, side, side, 3)
    return found


def bad(content: bytes, limit: int = LIMIT) -> Rejected:
    found = decode(content, limit, 224)
    assert isinstance(found, Rejected), found
    assert not re.search(r"0x[0-9a-f]{6}", found.message)
    assert found == decode(content, limit, 224)
    return found


def flat(content: bytes) -> list[int]:
    """The one colour of an image of one colour."""
    pixels = good(content).squares[0].reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return [int(value) for value in pixels[0]]


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand; `rows` are unfiltered and have no filter bytes yet."""
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[start : start + stride] for start in range(0, len(rows), stride))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bitmap(side: int, bits: int, alpha: int = 255) -> bytes:
    """One colour and its mask, as icons hold them."""
    header = struct.pack("<IiiHHIIiiII", 40, side, 2 * side, 1, bits, 0, 0, 0, 0, 0, 0)
    pixel = bytes(reversed((200, 10, 20))) + (bytes([alpha]) if bits == 32 else b"")
    row = (pixel * side).ljust(-(-side * bits // 32) * 4, b"\0")
    return header + row * side + bytes(-(-side // 32) * 4 * side)
