"""Colours that a file numbers as H.273 does (`nclx`), as a colour profile: what a profile says, converted by the same code."""

import struct

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault

UNSPECIFIED = 2
_D50, _D65 = (0.9642, 1.0, 0.8249), (0.3127, 0.3290)
# x and y of red, green and blue. What is not specified is taken for sRGB's.
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_BT601 = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_PRIMARIES = {
    1: _BT709,
    UNSPECIFIED: _BT709,
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: _BT601,
    7: _BT601,
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
# An ICC parametric curve of type 3: exponent, a, b, c, d.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES = {
    UNSPECIFIED: _SRGB_CURVE,
    13: _SRGB_CURVE,
    4: (2.2, 1.0, 0.0, 0.0, 0.0),
    5: (2.8, 1.0, 0.0, 0.0, 0.0),
    8: (1.0, 1.0, 0.0, 0.0, 0.0),
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
}
_NOT_READ = {16: "PQ", 18: "HLG"}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of(primaries: int, transfer: int, is_gray: bool) -> bytes:
    """Return the profile of a display with such colours.

    Raises:
        Fault: UNSUPPORTED, brightness beyond white (PQ, HLG), or numbers that are not known.
    """
    if transfer not in _CURVES:
        raise Fault(Reason.UNSUPPORTED, f"colours with the transfer {_NOT_READ.get(transfer, transfer)}, which are not read")
    if primaries not in _PRIMARIES:
        raise Fault(Reason.UNSUPPORTED, f"colours with the primaries {primaries}, which are not read")
    curve = struct.pack(">4sIHH5i", b"para", 0, 3, 0, *(round(one * 65536) for one in _CURVES[transfer]))
    if is_gray:
        return _profile(b"GRAY", {b"kTRC": curve})
    colours = zip((b"rXYZ", b"gXYZ", b"bXYZ"), _colorants(_PRIMARIES[primaries]).T, strict=True)
    return _profile(b"RGB ", {name: _xyz(one) for name, one in colours} | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _colorants(primaries: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """Return XYZ of red, green and blue as columns, adapted from D65 to a profile's D50 (Bradford)."""
    columns, white = np.stack([_of(x, y) for x, y in primaries], 1), _of(*_D65)
    colorants = columns * np.linalg.solve(columns, white)
    scale = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ colorants
    return adapted


def _of(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz(value: NDArray[np.float64]) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(float(one) * 65536) for one in value))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = "H.273".encode("utf-16-be")
    description = struct.pack(">4sIII4sII", b"mluc", 0, 1, 12, b"enUS", len(text), 28) + text
    white = _xyz(np.array(_D50))
    tags = {b"desc": description, b"cprt": description, b"wtpt": white} | tags
    start, entries, bodies = 128 + 4 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        entries += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(bodies), 0x04200000, b"mntr", space, b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + white[8:] + bytes(48) + struct.pack(">I", len(tags)) + entries + bodies
