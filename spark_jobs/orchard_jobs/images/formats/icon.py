"""Read the largest picture of a Windows icon. Its directory is not believed: the picture inside says how large it is."""

import struct
from typing import NamedTuple

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault, Limits, Picture
from orchard_jobs.images.formats.png import read_png
from orchard_jobs.images.formats.stock import eight_bits, load_with

_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER, _ENTRY = 6, 16


class _Entry(NamedTuple):
    side: tuple[int, int]
    bits: int
    start: int
    size: int


def read_icon(content: bytes, limits: Limits) -> Picture:
    """Return the largest picture, of equals the one with the most colours."""
    entries = [_entry(content, number) for number in range(int.from_bytes(content[4:6], "little"))]
    if not entries:
        raise Fault(Reason.NOT_AN_IMAGE, "an icon's header without pictures")
    best = max(entries, key=lambda entry: (entry.side[0] * entry.side[1], entry.bits))
    inner = content[best.start : best.start + best.size]
    if len(inner) < max(best.size, 16):
        raise Fault(Reason.TRUNCATED, f"ICO: a picture of {best.size} bytes at byte {best.start} of {len(content)}")
    if inner.startswith(_PNG):
        return read_png(inner, limits)
    width, height = struct.unpack("<ii", inner[4:12])
    # Colours and mask lie above each other.
    limits.check_size(abs(width), abs(height) // 2)
    directory = content[2:4] + struct.pack("<H", 1)
    sides = bytes((abs(width) & 255, abs(height) // 2 & 255))
    entry = sides + struct.pack("<BBHHII", 0, 0, 1, best.bits, len(inner), _HEADER + _ENTRY)
    return Picture(eight_bits(load_with(b"\0\0" + directory + entry + inner, "ICO", limits)))


def _entry(content: bytes, number: int) -> _Entry:
    start = _HEADER + _ENTRY * number
    if len(content) < start + _ENTRY:
        raise Fault(Reason.TRUNCATED, "ICO: the directory is cut short")
    width, height, _, _, _, bits, size, place = struct.unpack("<BBBBHHII", content[start : start + _ENTRY])
    return _Entry((width or 256, height or 256), bits, place, size)
