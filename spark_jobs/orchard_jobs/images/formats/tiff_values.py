"""Numbers of a TIFF's samples: undo the predictor, unpack the bits, and give each number its shade of 0 to 255."""

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault
from orchard_jobs.images.formats.tiff_layout import BLOCK_ROWS, Bytes, TiffLayout
from orchard_jobs.images.formats.tiff_tags import Tags

# Enough to know the range of all.
_LOOKED_AT = 1_000_000


def numbers_of(layout: TiffLayout, rows: Bytes) -> NDArray[np.number]:
    """Return the numbers [rows, chunk width, samples] of a chunk's bytes [rows, bytes a row]."""
    shape = (len(rows), layout.chunk_width, layout.chunk_samples)
    if layout.bits < 8 or layout.bits not in (8, 16, 32, 64):
        if layout.predictor != 1:
            raise Fault(Reason.UNSUPPORTED, f"a TIFF with a predictor on {layout.bits} bits a sample")
        return _unpack(layout, rows).reshape(shape)
    size = layout.bits // 8
    if layout.predictor == 3 and layout.kind == "f":
        return _undo_float_predictor(rows, layout).reshape(shape)
    order = "=" if size == 1 else layout.order
    if layout.predictor == 1:
        return np.ascontiguousarray(rows).view(f"{order}{layout.kind}{size}").reshape(shape)
    if layout.predictor != 2:
        raise Fault(Reason.UNSUPPORTED, f"a TIFF with predictor {layout.predictor} on samples of kind {layout.kind}")
    differences = np.ascontiguousarray(rows).view(f"{order}u{size}").reshape(shape)
    return np.cumsum(differences, axis=1, dtype=f"u{size}").view(f"{layout.kind}{size}")


def _undo_float_predictor(rows: Bytes, layout: TiffLayout) -> NDArray[np.number]:
    # Bytes of equal weight lie together, the weightiest first, and each is the difference to the one a pixel before.
    size = layout.bits // 8
    pixels = rows.reshape(len(rows), -1, layout.chunk_samples)
    planes = np.cumsum(pixels, axis=1, dtype=np.uint8).reshape(len(rows), size, -1)
    return np.ascontiguousarray(planes.swapaxes(1, 2)).view(f">f{size}")


def _unpack(layout: TiffLayout, rows: Bytes) -> NDArray[np.uint16]:
    count = layout.chunk_width * layout.chunk_samples
    numbers = np.empty((len(rows), count), np.uint16)
    weights = (1 << np.arange(layout.bits - 1, -1, -1)).astype(np.uint16)
    for start in range(0, len(rows), BLOCK_ROWS):
        bits = np.unpackbits(rows[start : start + BLOCK_ROWS], axis=1)[:, : count * layout.bits]
        numbers[start : start + BLOCK_ROWS] = bits.reshape(len(bits), count, layout.bits) @ weights
    return numbers


def high_byte(numbers: NDArray[np.number], bits: int) -> Bytes:
    """Return shades of unsigned numbers of 1 to 16 bits; fewer than 8 bits are spread evenly."""
    if bits < 8:
        return (numbers.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    return np.right_shift(numbers.astype(np.uint16, copy=False), bits - 8).astype(np.uint8)


def shades_of(numbers: NDArray[np.number], layout: TiffLayout, found: Tags) -> Bytes:
    """Return shades of signed, 32-bit, 64-bit and floating-point numbers, and of others whose range the tags tell.

    Black and white come from the tags, or else from the numbers. A thousandth of the numbers may lie outside at
    each end; it is clipped.
    """
    if layout.kind == "f" and not all(np.isfinite(block).all() for block in _blocks(numbers)):
        raise Fault(Reason.UNSUPPORTED, "a TIFF of floats that are not all finite numbers")
    flat = numbers.reshape(-1)
    seen = np.sort(flat[:: -(-len(flat) // _LOOKED_AT)])
    tagged = _tagged_range(found, seen)
    black, white = tagged or _range_of(seen)
    rounded = np.rint if tagged or black or layout.kind == "f" else np.floor
    shades = np.empty(numbers.shape, np.uint8)
    for block, target in zip(_blocks(numbers), _blocks(shades), strict=True):
        target[:] = np.clip(rounded((block.astype(np.float64) - black) * (255 / (white - black))), 0, 255)
    return shades


def _tagged_range(found: Tags, seen: NDArray[np.number]) -> tuple[float, float] | None:
    is_float = seen.dtype.kind == "f"
    tagged = found.sample_range(is_float)
    # A float type's own greatest number is no white: it is what the tag means where it is absent.
    if tagged is None or (is_float and tagged[1] >= 0.999 * float(np.finfo(f"f{seen.dtype.itemsize}").max)):
        return None
    least, greatest = tagged
    if not least <= seen[len(seen) // 2] <= greatest:
        raise Fault(
            Reason.UNSUPPORTED, f"a TIFF whose tags give the range {least:g} to {greatest:g}, but most values lie outside"
        )
    return tagged


# Floats whose greatest is below this are of a range of their own, such as -1..1, not of 0..255.
_DARK = 32


def _range_of(seen: NDArray[np.number]) -> tuple[float, float]:
    """Return what is black and white: a usual range, or else the numbers' own, unless a few of them alone make it so."""
    low, high = _ends(seen, max(len(seen) // 1000, int(len(seen) >= 100)))
    most = _ends(seen, max(len(seen) // 100, 1)) if len(seen) > 2 else (low, high)
    usual, usual_of_most = _usual_range(seen, low, high), _usual_range(seen, *most)
    if usual and usual == usual_of_most:
        return usual
    if usual or usual_of_most or low == high or most[1] - most[0] < (high - low) / 8:
        what = f"whose values are from {low:g} to {high:g}, most of them from {most[0]:g} to {most[1]:g}"
        raise Fault(Reason.UNSUPPORTED, f"a TIFF {what}: no tag gives the values of black and white")
    return low, high


def _ends(seen: NDArray[np.number], left_out: int) -> tuple[float, float]:
    return float(seen[left_out]), float(seen[len(seen) - 1 - left_out])


def _usual_range(seen: NDArray[np.number], low: float, high: float) -> tuple[float, float] | None:
    return _float_range(seen, low, high) if seen.dtype.kind == "f" else _integer_range(8 * seen.dtype.itemsize, low, high)


def _integer_range(bits: int, low: float, high: float) -> tuple[float, float] | None:
    """Return what is black and white: 8-bit numbers where they fit, then 16-bit numbers, then all bits."""
    fitting = next((range_bits for range_bits in (8, 16) if high < 2**range_bits), bits)
    return (0, 255 * 2.0 ** (fitting - 8)) if low >= 0 else None


def _float_range(seen: NDArray[np.number], low: float, high: float) -> tuple[float, float] | None:
    """Return what is black and white: 0..1 or 0..255 where they fit with some room, and most numbers are none below black."""
    if seen[len(seen) // 2] < 0:
        return None
    if low >= -0.5 and high <= 1.5:
        return 0, 1
    positive = seen[seen > 0]
    if low >= -0.5 and (positive[len(positive) // 2] <= 1 or high < _DARK):
        raise Fault(Reason.UNSUPPORTED, f"a TIFF of floats up to {high:g}: no tag gives the value of white")
    return (0, 255) if low >= -127 and _DARK <= high <= 383 else None


def _blocks(numbers: NDArray[np.number]) -> list[NDArray[np.number]]:
    return [numbers[start : start + BLOCK_ROWS] for start in range(0, len(numbers), BLOCK_ROWS)]
