"""Read the largest picture of a Windows icon. Its directory is not believed: the picture inside says how large it is."""

import struct
from typing import NamedTuple

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault, Limits, Picture
from orchard_jobs.images.formats.png import read_png
from orchard_jobs.images.formats.signatures import JPEG_SIGNATURE, PNG_SIGNATURE
from orchard_jobs.images.formats.stock import check_runs, eight_bits, load_with

_HEADER, _ENTRY, _DIB = 6, 16, 40
_DIB_HEADERS = (_DIB, 52, 56, 108, 124)


class _Inner(NamedTuple):
    """Where a picture inside lies, and what its own header says."""

    width: int
    height: int
    bits: int
    start: int
    end: int


def read_icon(content: bytes, limits: Limits) -> Picture:
    """Return the largest picture, of equals the one with the most colours."""
    pictures = [_inner(content, number) for number in range(int.from_bytes(content[4:6], "little"))]
    if not pictures:
        raise Fault(Reason.NOT_AN_IMAGE, "an icon's header without pictures")
    best = max(pictures, key=lambda one: (one.width * one.height, one.bits))
    if best.end > len(content):
        raise Fault(Reason.TRUNCATED, f"ICO: its largest picture runs out of the file of {len(content)} bytes")
    inner = content[best.start : best.end]
    if inner.startswith(PNG_SIGNATURE):
        return read_png(inner, limits)
    limits.check_size(best.width, best.height)
    check_runs(inner[:_DIB], len(inner), limits)
    return Picture(eight_bits(load_with(_icon_of(content[2:4], best, inner), "ICO", limits)))


def _inner(content: bytes, number: int) -> _Inner:
    start = _HEADER + _ENTRY * number
    if len(content) < start + _ENTRY:
        raise Fault(Reason.TRUNCATED, "ICO: the directory is cut short")
    size, place = struct.unpack("<II", content[start + 8 : start + _ENTRY])
    # No more than the header: there can be 65,535 pictures, all of them the whole file.
    head = content[place : place + min(size, _DIB)]
    if head.startswith(PNG_SIGNATURE) and len(head) >= 26:
        width, height, depth = struct.unpack(">IIB", head[16:25])
        return _Inner(width, height, 4 * depth, place, place + size)
    if head.startswith(JPEG_SIGNATURE):
        raise Fault(Reason.UNSUPPORTED, "an icon that holds a JPEG")
    if len(head) < _DIB:
        raise Fault(Reason.TRUNCATED, f"ICO: a picture of {size} bytes at byte {place} of {len(content)}")
    header, width, height, _, bits = struct.unpack("<IiiHH", head[:16])
    if header not in _DIB_HEADERS:
        raise Fault(Reason.UNSUPPORTED, f"an icon that holds neither a PNG nor a bitmap: it begins with {head[:8]!r}")
    # Colours and mask lie above each other.
    return _Inner(abs(width), abs(height) // 2, bits, place, place + size)


def _icon_of(kind: bytes, found: _Inner, inner: bytes) -> bytes:
    sides = bytes((found.width & 255, found.height & 255))
    entry = sides + struct.pack("<BBHHII", 0, 0, 1, found.bits, len(inner), _HEADER + _ENTRY)
    return b"\0\0" + kind + struct.pack("<H", 1) + entry + inner
