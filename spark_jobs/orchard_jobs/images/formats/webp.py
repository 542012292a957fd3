"""Read a WebP. Its library decodes whatever bytes there are, so a hole of zeros shows only at the end of the data."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault, Limits, Picture, check_parts
from orchard_jobs.images.formats.signatures import Format
from orchard_jobs.images.formats.stock import load_with, picture_of

# A flat picture may have more zero bytes in a row. A photo has no more than 4.
_MANY_ZEROS = bytes(32)
# The last bytes of the data, apart from two that only fill them up.
_FROM_END, _TO_END = 8, 2
_FRAME_HEADER = 16


def read_webp(content: bytes, limits: Limits) -> Picture:
    """Return the picture; of an animated one the first frame."""
    image = load_with(content, Format.WEBP, limits)
    start, end = next(_data(content, 12, len(content)), (0, 0))
    if content.find(_MANY_ZEROS, start, end) >= 0 and _is_same_without_its_end(content, end, image, limits):
        raise Fault(Reason.TRUNCATED, "WebP: zero bytes stand in place of data, and the last bytes are not needed")
    return picture_of(image)


def _data(content: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield where the coded data of each frame begin and end."""
    parts = 0
    while start + 8 <= stop:
        parts += 1
        check_parts(parts, "the chunks of a WebP")
        name, size = content[start : start + 4], int.from_bytes(content[start + 4 : start + 8], "little")
        body, start = start + 8, start + 8 + size + size % 2
        if name in (b"VP8 ", b"VP8L"):
            yield body, min(body + size, stop)
        elif name == b"ANMF":
            yield from _data(content, body + _FRAME_HEADER, min(body + size, stop))


def _is_same_without_its_end(content: bytes, end: int, image: Image.Image, limits: Limits) -> bool:
    changed = np.frombuffer(content, np.uint8).copy()
    changed[end - _FROM_END : end - _TO_END] ^= 0xFF
    try:
        other = load_with(changed.tobytes(), Format.WEBP, limits)
    except OSError:
        return False
    return np.array_equal(np.asarray(image), np.asarray(other))
