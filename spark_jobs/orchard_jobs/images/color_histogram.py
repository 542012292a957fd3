"""Colour histograms as a backbone: no weights and no layers. What a network learnt is measured against them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_HUES, _SATURATIONS, _VALUES = 16, 4, 4
DIMENSION = _HUES * _SATURATIONS * _VALUES


def color_histograms(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share of each square's pixels in each of 16 hues x 4 saturations x 4 values: float32 [n, 256], rows of sum 1.

    The values are equalised first (Gonzalez and Woods, Digital Image Processing, 2018, 3.3), so that a darker photo of the same
    picture has the same histogram.

    Args:
        squares: uint8 RGB [n, side, side, 3].
    """
    return np.stack([_histogram(square) for square in squares]).astype(np.float32)


def _histogram(square: NDArray[np.uint8]) -> NDArray[np.float64]:
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(square).convert("HSV")).astype(np.int64), -1, 0)
    cell = (hue * _HUES // 256 * _SATURATIONS + saturation * _SATURATIONS // 256) * _VALUES
    cell += np.floor(_ranks(value) * _VALUES).astype(np.int64)
    shares: NDArray[np.float64] = np.bincount(cell.ravel(), minlength=DIMENSION) / cell.size
    return shares


def _ranks(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of pixels that are darker than each, half of those that are as bright included: above 0 and below 1."""
    counts = np.bincount(values.ravel(), minlength=256)
    shares: NDArray[np.float64] = (np.cumsum(counts) - counts / 2) / values.size
    return shares[values]
