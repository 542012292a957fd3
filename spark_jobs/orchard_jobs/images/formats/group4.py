"""Whether CCITT's Group 4 data were read to their end: libtiff stops where no code fits, and leaves all further rows white."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from orchard_jobs.images.formats import tiff_tags as tags

# The code that ends the data, and bits that fill the last byte.
_END_BYTES = 4
# Writers may add some bytes.
_SPARE_BYTES = 64
# Of the dearest row: 9 bits for each pair of runs of one pixel.
_BITS_A_PIXEL = 5
# Coding costs a third of a millisecond, and a picture of shorter strips has thousands.
_LEAST_ROWS = 8


def is_read_to_its_end(content: bytes, rows: NDArray[np.bool_]) -> bool:
    """Return whether as many bytes are left as the white rows at the end take.

    The rows before them are coded anew, as T.6 says it. Where other bytes come out, or there are fewer than 8 rows, nothing can
    be told, and the answer is yes.

    Args:
        content: the data, the first bit of a byte being its highest.
        rows: what libtiff made of them [rows, width], true where it is black.
    """
    if len(rows) < _LEAST_ROWS:
        return True
    dark = np.flatnonzero(rows.any(axis=1))
    # The last row that is not white may have been begun only.
    last = int(dark[-1]) if len(dark) else 0
    known = _coded(rows[:last])[:-_END_BYTES] if last else b""
    if not content.startswith(known):
        return True
    left, white = len(content) - len(known), len(rows) - last - 1
    return white <= 8 * left and left <= (_BITS_A_PIXEL * rows.shape[1] + white) // 8 + _SPARE_BYTES


def _coded(rows: NDArray[np.bool_]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "TIFF", compression="group4", tiffinfo={tags.ROWS_PER_STRIP: len(rows)})
    whole = Image.open(file, formats=["TIFF"])
    assert isinstance(whole, TiffImagePlugin.TiffImageFile)
    start, size = whole.tag_v2[tags.STRIP_OFFSETS][0], whole.tag_v2[tags.STRIP_SIZES][0]
    return file.getvalue()[start : start + size]
