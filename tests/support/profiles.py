"""Colour profiles by hand: as small as lcms takes them."""

import struct

_D50 = (0.9642, 1.0, 0.8249)
# Of Display P3, adapted to D50.
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))


def rgb_profile(gamma: float = 2.2) -> bytes:
    """A display profile with the primaries of Display P3."""
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + b"\0\0"
    colours = zip((b"rXYZ", b"gXYZ", b"bXYZ"), P3, strict=True)
    return _profile(
        b"RGB ", b"XYZ ", {name: _xyz(value) for name, value in colours} | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    )


def gray_profile(gamma: float) -> bytes:
    """A display profile of gray shades."""
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + b"\0\0"})


def cmyk_profile(lightness: int) -> bytes:
    """A printer's profile that makes one gray of all inks; lightness of 0 to 255."""
    steps = bytes(range(256))
    table = struct.pack(">4sIBBBx9i", b"mft1", 0, 4, 3, 2, 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table + steps * 4 + bytes((lightness, 128, 128)) * 16 + steps * 3}, b"prtr")


def _xyz(value: tuple[float, ...]) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(one * 65536) for one in value))


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    tags = {b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + bytes(78), b"wtpt": _xyz(_D50)} | tags
    start, entries, bodies = 128 + 4 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        entries += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    date, magic = struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp"
    head = struct.pack(">I4sI", start + len(bodies), b"lcms", 0x02400000) + kind + space + connection + date + magic
    return head.ljust(68, b"\0") + _xyz(_D50)[8:] + bytes(48) + struct.pack(">I", len(tags)) + entries + bodies
