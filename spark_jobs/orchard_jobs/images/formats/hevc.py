"""Decode one HEVC picture with libde265, which pi-heif contains, and report every fault that it met.

libheif and pi-heif keep libde265's warnings to themselves and go on with gray or green where a picture is damaged. So the
library is called here, by its own C interface. A picture's end may be missing without a warning, but then its memory is blank
there. One thread, the caller's.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.heif import heif_extension
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault

_OK, _OUT_OF_MEMORY, _NOT_IMPLEMENTED = 0, 7, 502
# Of threads that are not used, and of messages that describe a picture: they say nothing about its data.
_HARMLESS = {1000, 1022, 1025, 1036}
_CHECK_HASHES = 0
_SUBSAMPLING = {1: (2, 2), 2: (2, 1), 3: (1, 1)}
# The middle of each smallest block, in pixels: what smooths the edges of blocks leaves it.
_MIDDLE, _BLOCK = 4, 8
# A picture is coded in whole blocks of up to 64 pixels.
_MARGIN = 64
# The matrix of planes that are green, blue and red.
GBR = 0


@dataclass(frozen=True)
class Vui:
    """What the data themselves say of colours, as H.273 numbers them; 2 is unspecified."""

    primaries: int
    transfer: int
    matrix: int
    is_full_range: bool


@dataclass(frozen=True)
class Planes:
    """A decoded picture.

    Attributes:
        samples: brightness, and the two of colour unless it is gray; 8 bits a sample, of more the high ones.
        subsampling: pixels of brightness for one of colour, across and down.
        vui: what the data say of colours.
    """

    samples: tuple[NDArray[np.uint8], ...]
    subsampling: tuple[int, int]
    vui: Vui

    def step(self, plane: int) -> tuple[int, int]:
        """Return how many pixels one sample of a plane stands for, across and down."""
        return self.subsampling if plane else (1, 1)


class _SecurityLimits(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint8), ("pixels", ctypes.c_uint32)]


def check_installed() -> None:
    """Raise Fault UNSUPPORTED when this environment has no decoder of HEVC."""
    if heif_extension() is None:
        raise Fault(Reason.UNSUPPORTED, "HEIC is read with pi-heif, which is not installed here: install orchard-jobs[heif]")


def decode_hevc(units: list[bytes], width: int, height: int) -> Planes:
    """Return the picture of a coded stream.

    Args:
        units: its NAL units, parameter sets first.
        width: that the container tells; a larger picture than the blocks that cover it is refused before it gets memory.
        height: likewise.

    Raises:
        Fault: TRUNCATED, anything is missing or damaged; UNSUPPORTED, the library does not know the coding.
        MemoryError: there is not enough.
    """
    with _decoding(width, height) as (library, context):
        for unit in units:
            _check(library, library.de265_push_NAL(context, unit, len(unit), 0, None))
        _check(library, library.de265_flush_data(context))
        image = _first_picture(library, context)
        while warning := library.de265_get_warning(context):
            if warning not in _HARMLESS:
                raise _fault(library, warning)
        if image is None:
            raise Fault(Reason.TRUNCATED, "HEVC: the data give no picture")
        planes = _planes(library, image)
    if _is_partly_blank(planes):
        raise Fault(Reason.TRUNCATED, "HEVC: the data end before the picture does")
    return planes


@contextmanager
def _decoding(width: int, height: int) -> Iterator[tuple[Any, int]]:
    """Yield the library and a decoder of pictures that are no larger than this."""
    library = _library()
    context = library.de265_new_decoder()
    if not context:
        raise MemoryError("HEVC: no decoder")
    try:
        library.de265_get_security_limits(context).contents.pixels = (width + _MARGIN) * (height + _MARGIN)
        library.de265_set_parameter_bool(context, _CHECK_HASHES, 1)
        yield library, context
    finally:
        library.de265_free_decoder(context)


def _first_picture(library: Any, context: int) -> int | None:
    """Return the address of the first whole picture; None where there is none."""
    more = ctypes.c_int(1)
    while more.value:
        more.value = 0
        _check(library, library.de265_decode(context, ctypes.byref(more)))
        if image := library.de265_peek_next_picture(context):
            return int(image)
    return None


def _check(library: Any, status: int) -> None:
    if status == _OUT_OF_MEMORY:
        raise MemoryError("HEVC: out of memory, or a larger picture than the header tells")
    if status != _OK and status not in _HARMLESS:
        raise _fault(library, status)


def _fault(library: Any, status: int) -> Fault:
    words = library.de265_get_error_text(status).decode("utf-8", "replace")
    return Fault(Reason.UNSUPPORTED if status == _NOT_IMPLEMENTED else Reason.TRUNCATED, f"HEVC: {words}")


def _is_partly_blank(planes: Planes) -> bool:
    """Whether a block was never decoded: zero in all planes, which is the memory's first state and no colour."""
    if len(planes.samples) == 1 or planes.vui.matrix == GBR:
        return False
    blank: Any = True
    for plane, samples in enumerate(planes.samples):
        across, down = planes.step(plane)
        points = samples[_MIDDLE // down :: _BLOCK // down, _MIDDLE // across :: _BLOCK // across]
        rows, columns = (planes.samples[0].shape[0] + 3) // _BLOCK, (planes.samples[0].shape[1] + 3) // _BLOCK
        blank = blank & (points[:rows, :columns] == 0)
    return bool(np.any(blank))


def _planes(library: Any, image: int) -> Planes:
    chroma = library.de265_get_chroma_format(image)
    samples: list[NDArray[np.uint8]] = []
    for number in range(3 if chroma else 1):
        bits = library.de265_get_bits_per_pixel(image, number)
        samples.append((_plane(library, image, number, bits) >> (bits - 8)).astype(np.uint8))
    vui = Vui(
        library.de265_get_image_colour_primaries(image),
        library.de265_get_image_transfer_characteristics(image),
        library.de265_get_image_matrix_coefficients(image),
        bool(library.de265_get_image_full_range_flag(image)),
    )
    return Planes(tuple(samples), _SUBSAMPLING.get(chroma, (1, 1)), vui)


def _plane(library: Any, image: int, number: int, bits: int) -> NDArray[Any]:
    """Return a view of a plane's memory, which the picture owns."""
    width, height = library.de265_get_image_width(image, number), library.de265_get_image_height(image, number)
    stride = ctypes.c_int()
    address = library.de265_get_image_plane(image, number, ctypes.byref(stride))
    kind = np.dtype(np.uint8) if bits <= 8 else np.dtype(np.uint16)
    # The last row may end with the picture, and the memory with it.
    memory = (ctypes.c_uint8 * (stride.value * (height - 1) + width * kind.itemsize)).from_address(address)
    samples: NDArray[Any] = np.ctypeslib.as_array(memory).view(kind)
    return np.lib.stride_tricks.as_strided(samples, (height, width), (stride.value, kind.itemsize), writeable=False)


@cache
def _library() -> Any:
    found = heif_extension()
    assert found is not None
    # The system looks a name up in what the extension was linked with, too.
    library = ctypes.CDLL(found.origin)
    number, address = ctypes.c_int, ctypes.c_void_p
    pointer = ctypes.POINTER(ctypes.c_int)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "de265_new_decoder": (address, []),
        "de265_free_decoder": (number, [address]),
        "de265_push_NAL": (number, [address, ctypes.c_char_p, number, ctypes.c_int64, address]),
        "de265_flush_data": (number, [address]),
        "de265_decode": (number, [address, pointer]),
        "de265_peek_next_picture": (address, [address]),
        "de265_get_warning": (number, [address]),
        "de265_get_error_text": (ctypes.c_char_p, [number]),
        "de265_set_parameter_bool": (None, [address, number, number]),
        "de265_get_security_limits": (ctypes.POINTER(_SecurityLimits), [address]),
        "de265_get_chroma_format": (number, [address]),
        "de265_get_image_width": (number, [address, number]),
        "de265_get_image_height": (number, [address, number]),
        "de265_get_bits_per_pixel": (number, [address, number]),
        "de265_get_image_plane": (address, [address, number, pointer]),
        "de265_get_image_full_range_flag": (number, [address]),
        "de265_get_image_colour_primaries": (number, [address]),
        "de265_get_image_transfer_characteristics": (number, [address]),
        "de265_get_image_matrix_coefficients": (number, [address]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
