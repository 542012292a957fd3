"""TIFFs by hand: samples of any kind, packed and predicted as the tags say."""

import io
import struct
import zlib
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

NONE, LZW, DEFLATE, PACKBITS, LZMA, ZSTANDARD = 1, 5, 8, 32773, 34925, 50000
_PILLOW = {LZW: "tiff_lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTANDARD: "zstd"}
_FORMATS = {"u": 1, "i": 2, "f": 3}


@dataclass(frozen=True)
class Form:
    """How samples are written.

    Attributes:
        order: `<` or `>`.
        rows: of a strip; None for one strip.
        tile: width and height; None for strips.
        tags: further tags, or others than those that follow from the samples.
    """

    order: Literal["<", ">"] = "<"
    compression: int = NONE
    predictor: int = 1
    rows: int | None = None
    tile: tuple[int, int] | None = None
    is_separate: bool = False
    photometric: int | None = None
    tags: dict[int, list[int]] = field(default_factory=dict)


PLAIN = Form()


def tiff(samples: NDArray[np.number], form: Form = PLAIN, bits: int | None = None) -> bytes:
    """A TIFF of samples [height, width] or [height, width, samples].

    Args:
        samples: as they are to be read.
        form: how they are written.
        bits: a sample, where it is none of NumPy's sizes; the samples are unsigned then.
    """
    pixels = samples if samples.ndim == 3 else samples[..., None]
    height, width, count = pixels.shape
    planes = [pixels[..., plane : plane + 1] for plane in range(count)] if form.is_separate else [pixels]
    chunks = [_packed(chunk, form, bits) for plane in planes for chunk in _chunks(plane, form)]
    photometric = form.photometric if form.photometric is not None else (2 if count >= 3 else 1)
    places = (324, 325) if form.tile else (273, 279)
    entries = {
        256: [width],
        257: [height],
        258: [bits or samples.dtype.itemsize * 8] * count,
        259: [form.compression],
        262: [photometric],
        277: [count],
        284: [2 if form.is_separate else 1],
        317: [form.predictor],
        339: [_FORMATS[samples.dtype.kind]] * count,
    }
    if form.tile:
        entries |= {322: [form.tile[0]], 323: [form.tile[1]]}
    else:
        entries |= {278: [form.rows or height]}
    return _written(entries | form.tags, chunks, places, form.order)


def _chunks(plane: NDArray[np.number], form: Form) -> list[NDArray[np.number]]:
    height, width, _ = plane.shape
    if form.tile is None:
        rows = form.rows or height
        return [plane[top : top + rows] for top in range(0, height, rows)]
    across, down = form.tile
    padded = np.pad(plane, ((0, -height % down), (0, -width % across), (0, 0)))
    return [
        padded[top : top + down, left : left + across]
        for top in range(0, len(padded), down)
        for left in range(0, padded.shape[1], across)
    ]


def _packed(chunk: NDArray[np.number], form: Form, bits: int | None) -> bytes:
    rows = len(chunk)
    if bits is not None:
        wide = chunk.reshape(rows, -1).astype(np.uint32)
        digits = (wide[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        content = np.packbits(digits.reshape(rows, -1).astype(np.uint8), axis=1)
    elif form.predictor == 3:
        planes = chunk.astype(chunk.dtype.newbyteorder(">")).reshape(rows, -1).view(np.uint8)
        by_weight = planes.reshape(rows, -1, chunk.itemsize).swapaxes(1, 2).reshape(rows, -1, chunk.shape[2])
        content = np.diff(by_weight, axis=1, prepend=np.zeros_like(by_weight[:, :1])).reshape(rows, -1)
    else:
        kept = chunk.view(f"u{chunk.itemsize}")
        if form.predictor == 2:
            kept = np.diff(kept, axis=1, prepend=np.zeros_like(kept[:, :1]))
        content = kept.astype(kept.dtype.newbyteorder(form.order)).reshape(rows, -1).view(np.uint8)
    return _compressed(np.ascontiguousarray(content), form.compression)


def _compressed(rows: NDArray[np.uint8], compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(rows.tobytes())
    if compression not in _PILLOW:
        return rows.tobytes()
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "TIFF", compression=_PILLOW[compression], tiffinfo={278: len(rows)})
    whole = Image.open(file)
    assert isinstance(whole, TiffImagePlugin.TiffImageFile)
    start, size = whole.tag_v2[273], whole.tag_v2[279]
    assert len(start) == 1
    return file.getvalue()[start[0] : start[0] + size[0]]


def _written(entries: dict[int, list[int]], chunks: list[bytes], places: tuple[int, int], order: str) -> bytes:
    sizes = [len(chunk) for chunk in chunks]
    return with_places(entries, b"".join(chunks), places, [*accumulate(sizes, initial=0)][:-1], sizes, order)


def with_places(
    entries: dict[int, list[int]], body: bytes, places: tuple[int, int], starts: list[int], sizes: list[int], order: str = "<"
) -> bytes:
    """A TIFF of tags and a body.

    Args:
        entries: all other tags.
        body: what the strips or tiles lie in.
        places: the tags of their places and sizes.
        starts: where they begin in the body.
        sizes: their bytes.
        order: `<` or `>`.
    """
    entries = entries | {places[0]: starts, places[1]: sizes}
    beyond = 8 + 2 + 12 * len(entries) + 4
    start = beyond + sum(4 * len(values) for values in entries.values() if len(values) > 1)
    entries[places[0]] = [start + place for place in starts]
    directory, arrays = b"", b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            arrays += packed
            packed = struct.pack(f"{order}I", beyond + len(arrays) - len(packed))
        directory += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}IH", 8, len(entries)) + directory + bytes(4)
    return head + arrays + body
