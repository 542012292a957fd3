"""Read a TIFF as its tags say: numbers from strips and tiles, then shades, then colours. What they do not say is not guessed."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats import tiff_tags as tags
from orchard_jobs.images.formats.picture import PROFILE_BYTES, Fault, Limits, Picture
from orchard_jobs.images.formats.tiff_chunks import read_chunks
from orchard_jobs.images.formats.tiff_layout import (
    BLACK_IS_ZERO,
    BLOCK_ROWS,
    CCITT,
    JPEG,
    RGB,
    WEBP,
    WHITE_IS_ZERO,
    YCBCR,
    Bytes,
    TiffLayout,
    read_layout,
)
from orchard_jobs.images.formats.tiff_tags import Tags, read_tags
from orchard_jobs.images.formats.tiff_values import high_byte, numbers_of, shades_of

_PALETTE, _CMYK, _CIELAB, _ICCLAB = 3, 5, 8, 9
_MODES = {
    WHITE_IS_ZERO: "L",
    BLACK_IS_ZERO: "L",
    RGB: "RGB",
    _PALETTE: "P",
    _CMYK: "CMYK",
    YCBCR: "YCbCr",
    _CIELAB: "LAB",
    _ICCLAB: "LAB",
}
_COEFFICIENTS, _BLACK_AND_WHITE = (0.299, 0.587, 0.114), (0, 255, 128, 255, 128, 255)
_ALPHA = {1: "a", 2: "A"}


def read_tiff(content: bytes, limits: Limits) -> Picture:
    """Return the first picture."""
    found = read_tags(content)
    _check_first(found)
    layout = read_layout(found, limits)
    photometric = found.integer(tags.PHOTOMETRIC, _usual_photometric(layout))
    _check_colours(found, layout, photometric)
    samples = _samples(found, layout, photometric, limits)
    image = _image(found, layout, photometric, samples)
    orientation = found.integer(tags.ORIENTATION, 1)
    return Picture(image, orientation if 1 <= orientation <= 8 else 1, found.raw(tags.PROFILE, PROFILE_BYTES) or None)


def _check_first(found: Tags) -> None:
    """Refuse a file whose first picture only stands for the one that the file is about."""
    if tags.DNG_VERSION in found.places:
        raise Fault(Reason.UNSUPPORTED, "camera raw (DNG), which is not read")
    if found.integer(tags.SUBFILE, 0) & 1 and (tags.SUB_IFDS in found.places or found.has_more):
        raise Fault(Reason.UNSUPPORTED, "a TIFF whose first picture is a smaller copy of another, as in camera raw (NEF, ARW)")


def _usual_photometric(layout: TiffLayout) -> int:
    """Return what libtiff takes where the tag is missing."""
    if layout.compression in CCITT:
        return WHITE_IS_ZERO
    return BLACK_IS_ZERO if layout.samples < 3 else RGB


def _check_colours(found: Tags, layout: TiffLayout, photometric: int) -> None:
    mode = _MODES.get(photometric)
    if mode is None:
        raise Fault(Reason.UNSUPPORTED, f"a TIFF of photometric interpretation {photometric}, which is not read")
    if layout.samples < _bands(photometric):
        raise Fault(Reason.TRUNCATED, f"TIFF: {layout.samples} samples a pixel are too few for {mode}")
    is_plain = layout.kind == "u" and layout.bits <= 16
    is_right = {
        "P": is_plain and layout.bits <= 8 and layout.compression not in (JPEG, WEBP),
        "YCbCr": is_plain and layout.bits == 8 and (layout.unit == (1, 1) or layout.planes == 1) and layout.samples == 3,
        "CMYK": is_plain and found.integer(tags.INK_SET, 1) == 1,
        "LAB": is_plain and layout.bits in (8, 16),
    }
    if mode == "YCbCr" and layout.compression not in (JPEG, WEBP):
        _check_ycbcr(found)
    if not is_right.get(mode, True):
        raise Fault(Reason.UNSUPPORTED, f"a TIFF of {mode} colours with {layout.samples} samples of {layout.bits} bits")


def _check_ycbcr(found: Tags) -> None:
    """Refuse YCbCr of other colours or ranges than JPEG's, which are the usual ones."""
    for tag, usual in ((tags.YCBCR_COEFFICIENTS, _COEFFICIENTS), (tags.BLACK_AND_WHITE, _BLACK_AND_WHITE)):
        values = found.ratios(tag, len(usual) + 1)
        if len(values) > len(usual) or not np.allclose(values, usual[: len(values)], atol=0.001):
            raise Fault(Reason.UNSUPPORTED, f"a TIFF of YCbCr with the values {values} of tag {tag}, which is not read")


def _samples(found: Tags, layout: TiffLayout, photometric: int, limits: Limits) -> Bytes:
    """Return the picture's shades [height, width, samples]; of palettes the numbers of the colours."""
    samples = np.zeros((layout.height, layout.width, layout.samples), layout.kept)
    for number, rows in read_chunks(found, layout, limits):
        plane, place = divmod(number, layout.across * layout.down)
        top, left = (place // layout.across * layout.chunk_rows, place % layout.across * layout.chunk_width)
        target = samples[top : top + layout.rows_of(number), left : left + layout.chunk_width, _plane(layout, plane)]
        part = _part(layout, photometric, rows)
        if any(has < needs for has, needs in zip(part.shape, target.shape, strict=True)):
            raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile of {part.shape} samples, {target.shape} are needed")
        target[:] = part[: target.shape[0], : target.shape[1], : target.shape[2]]
    return _ranged(found, layout, photometric, samples) if layout.is_wide else samples


def _ranged(found: Tags, layout: TiffLayout, photometric: int, samples: NDArray[np.number]) -> Bytes:
    if not layout.has_range:
        return shades_of(samples, layout, found)
    # The range is that of the colours; transparency has all its bits.
    count = _bands(photometric)
    return np.concatenate([shades_of(samples[..., :count], layout, found), high_byte(samples[..., count:], layout.bits)], axis=2)


def _bands(photometric: int) -> int:
    return len(Image.new(_MODES[photometric], (1, 1)).getbands())


def _plane(layout: TiffLayout, plane: int) -> slice:
    return slice(None) if layout.planes == 1 else slice(plane, plane + 1)


def _part(layout: TiffLayout, photometric: int, rows: NDArray[np.uint8]) -> NDArray[np.number]:
    if layout.compression in (JPEG, WEBP):
        return rows
    if layout.unit != (1, 1):
        return _apart(layout, rows)
    numbers = numbers_of(layout, rows)
    if layout.is_wide or photometric == _PALETTE:
        return numbers
    return high_byte(numbers, layout.bits)


def _apart(layout: TiffLayout, rows: Bytes) -> Bytes:
    """Return YCbCr pixels of units that share a colour."""
    across, down = layout.unit
    units = rows.reshape(len(rows), -1, across * down + 2)
    shades = units[..., :-2].reshape(len(rows), -1, down, across).swapaxes(1, 2).reshape(len(rows) * down, -1)
    colours = units[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    return np.concatenate([shades[..., None], colours], axis=2)


def _image(found: Tags, layout: TiffLayout, photometric: int, samples: Bytes) -> Image.Image:
    mode = _MODES[photometric]
    if mode == "YCbCr" and layout.compression in (JPEG, WEBP):
        mode = "RGB"
    if photometric == WHITE_IS_ZERO:
        np.invert(samples[..., :1], out=samples[..., :1])
    if photometric == _PALETTE:
        return _coloured(found, layout, samples)
    if photometric == _ICCLAB:
        samples[..., 1:3] ^= 0x80
    count = _bands(photometric)
    alpha = _ALPHA.get(found.integer(tags.EXTRA_SAMPLES, 0), "") if layout.samples > count else ""
    if alpha and layout.is_wide and not layout.has_range:
        raise Fault(Reason.UNSUPPORTED, f"a TIFF with transparency and {layout.bits} bits a sample of kind {layout.kind}")
    if mode not in ("L", "RGB"):
        samples, alpha = _over_white(mode, samples, alpha), ""
    used = np.ascontiguousarray(samples[..., : count + len(alpha)])
    image = Image.frombytes(f"{mode}{alpha}", (layout.width, layout.height), used.tobytes())
    return image.convert("RGB") if mode == "YCbCr" else image


def _over_white(mode: str, samples: Bytes, alpha: str) -> Bytes:
    """Return inks as they lie on white paper; those of the kind `a` are already weighed. Others have no transparency."""
    if not alpha:
        return samples
    if mode != "CMYK":
        raise Fault(Reason.UNSUPPORTED, f"a TIFF of {mode} colours with transparency")
    if alpha == "A":
        inks = samples[..., :4]
        for top in range(0, len(inks), BLOCK_ROWS):
            block = inks[top : top + BLOCK_ROWS]
            block[:] = np.rint(block * (samples[top : top + BLOCK_ROWS, :, 4:5] / np.float32(255)))
    return samples


def _coloured(found: Tags, layout: TiffLayout, samples: Bytes) -> Image.Image:
    size = 1 << layout.bits
    entries = np.array(found.integers(tags.COLOUR_MAP, 3 * size), np.uint16)
    if len(entries) < 3 * size:
        raise Fault(Reason.TRUNCATED, f"TIFF: {len(entries)} entries of a colour map of {3 * size}")
    # Some writers fill the 16 bits of an entry with 0..255.
    colours = (entries >> 8 if entries.max() > 255 else entries).astype(np.uint8)[: 3 * size].reshape(3, size).T
    image = Image.fromarray(np.ascontiguousarray(samples[..., 0]), "P")
    image.putpalette(colours.tobytes())
    return image.convert("RGB")
