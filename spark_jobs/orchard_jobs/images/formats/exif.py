"""The orientation that EXIF gives. All else in EXIF may be broken: it says nothing about the picture."""

import struct

_TAG = 0x0112
# Bytes of a value, by its kind. A value from 1 to 8 is the same with and without a sign.
_SIZES = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}


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
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(body) - 8), 12):
        tag, kind, values = struct.unpack(f"{order}HHI", body[entry : entry + 8])
        if tag == _TAG and kind in _SIZES and values >= 1:
            # What pads the value to four bytes may be cut off.
            end = entry + 8 + _SIZES[kind]
            value = int.from_bytes(body[entry + 8 : end], "little" if order == "<" else "big")
            return value if 1 <= value <= 8 and len(body) >= end else 1
    return 1
