"""Planes of brightness and colour, as video stores them, to RGB, reduced on the way."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.cicp import UNSPECIFIED
from orchard_jobs.images.formats.hevc import GBR, Planes
from orchard_jobs.images.formats.picture import Fault

# What red and blue weigh in brightness, by H.273's number. What is not specified is BT.601's, as in JPEG.
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    **dict.fromkeys((UNSPECIFIED, 5, 6), (0.299, 0.114)),
}
# So many rows are converted at once, to hold no large picture as floats.
_STRIP_ROWS = 64
_Affine = tuple[NDArray[np.float32], NDArray[np.float32]]


def to_rgb(planes: Planes, reduction: int, matrix: int, is_full_range: bool) -> Image.Image:
    """Return an image of mode RGB, or L of one plane.

    Args:
        planes: of 8 bits.
        reduction: how many pixels, across and down, go into one of the image: the mean of the block.
        matrix: H.273's number of how colours became planes.
        is_full_range: whether samples go from 0 to 255, not from 16 to 235 (colours to 240).

    Raises:
        Fault: UNSUPPORTED, another matrix.
    """
    factor, offset = _affine(matrix, is_full_range)
    reduced = [_reduced(planes, number, reduction) for number in range(len(planes.samples))]
    if len(reduced) == 1:
        scale, shift = (1.0, 0.0) if is_full_range else (255 / 219, -16 * 255 / 219)
        return reduced[0] if is_full_range else reduced[0].point([_byte(scale * one + shift) for one in range(256)])
    image = Image.new("RGB", reduced[0].size)
    for top in range(0, image.height, _STRIP_ROWS):
        part = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
        samples = np.stack([np.asarray(one.crop(part)) for one in reduced], 2)
        colours = np.clip(samples.astype(np.float32) @ factor + offset, 0, 255)
        image.paste(Image.fromarray(np.rint(colours).astype(np.uint8)), (0, top))
    return image


def _affine(matrix: int, is_full_range: bool) -> _Affine:
    """Return the matrix, for rows of samples, and the offset that make RGB of samples."""
    if matrix == GBR:
        mix, middle = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), 0
        excursion = np.full(3, 219.0)
    elif matrix in _WEIGHTS:
        red, blue = _WEIGHTS[matrix]
        green = 1 - red - blue
        cr, cb = 2 * (1 - red), 2 * (1 - blue)
        mix, middle = np.array([[1, 0, cr], [1, -cb * blue / green, -cr * red / green], [1, cb, 0]]), 128
        excursion = np.array([219.0, 224.0, 224.0])
    else:
        raise Fault(Reason.UNSUPPORTED, f"colours with the matrix {matrix}, which are not read")
    zero = np.array([0, middle, middle] if is_full_range else [16, middle or 16, middle or 16])
    factor = mix if is_full_range else mix * 255 / excursion
    return factor.T.astype(np.float32), (-factor @ zero).astype(np.float32)


def _byte(value: float) -> int:
    return min(max(round(value), 0), 255)


def _reduced(planes: Planes, number: int, reduction: int) -> Image.Image:
    """Return a plane at the size of the reduced picture."""
    plane = Image.fromarray(planes.samples[number])
    across, down = planes.step(number)
    if reduction >= max(across, down):
        return plane.reduce((reduction // across, reduction // down)) if reduction > 1 else plane
    height, width = planes.samples[0].shape
    return plane.resize((width, height), Image.Resampling.BILINEAR, (0, 0, width / across, height / down))
