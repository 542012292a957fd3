"""The orientation that EXIF gives. All else in EXIF may be broken: it says nothing about the picture."""

import struct

_TAG = 0x0112
_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def orientation_of(exif: bytes | None) -> int:
    """Return 1 to 8; 1 where EXIF does not tell.

    Args:
        exif: with or without the leading `Exif` and two NUL bytes.
    """
    body = (exif or b"").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None or len(body) < 10:
        return 1
    directory = struct.unpack(f"{order}I", body[4:8])[0]
    count = int.from_bytes(body[directory : directory + 2], "little" if order == "<" else "big")
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(body) - 11), 12):
        tag, kind, values = struct.unpack(f"{order}HHI", body[entry : entry + 8])
        if tag == _TAG and kind in _VALUES and values >= 1:
            value = struct.unpack_from(f"{order}{_VALUES[kind]}", body, entry + 8)[0]
            return int(value) if 1 <= value <= 8 else 1
    return 1
