"""Read a PNG from the chunks that hold its pixels. No other chunk, whatever it holds, decides whether the picture is good."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.exif import orientation_of
from orchard_jobs.images.formats.picture import PROFILE_BYTES, Fault, Limits, Picture, check_parts
from orchard_jobs.images.formats.stock import eight_bits, load_with

_SIGNATURE_BYTES = 8
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_NEEDED = (*_PIXELS, b"IEND")
_NEXT_NEEDED = re.compile(b"|".join(_NEEDED))
_END = b"\0\0\0\0IEND\xaeB`\x82"
_GRAY, _RGB, _PALETTE = 0, 2, 3
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
# Of each of Adam7's passes the first column and row, and the steps across and down.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE_BYTES = 256 * 1024
# How often the checksums may walk over the whole file: damaged lengths can make each chunk seem to hold all that follows.
_CHECKSUM_WALKS = 8


class _Chunk(NamedTuple):
    name: bytes
    body: bytes
    whole: bytes
    is_right: bool


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    is_interlaced: bool


def read_png(content: bytes, limits: Limits) -> Picture:
    """Return the picture; of an animated one the image that stands for it."""
    header = _header(content)
    limits.check_size(header.width, header.height)
    chunks = list(_Chunks(content))
    parts = [chunk for chunk in chunks if chunk.name in _PIXELS]
    if not any(chunk.name == b"IDAT" for chunk in parts):
        raise Fault(Reason.TRUNCATED, "PNG: the file ends before its pixels")
    for chunk in parts:
        if not chunk.is_right:
            raise Fault(Reason.TRUNCATED, f"PNG: the checksum of a chunk {chunk.name.decode()} is wrong")
    key = next((chunk.body for chunk in parts if chunk.name == b"tRNS"), b"")
    kept = (chunk.whole for chunk in parts if chunk.name != b"tRNS" or _fits(header, chunk))
    pixels = content[:_SIGNATURE_BYTES] + b"".join(kept) + _END
    loaded = load_with(pixels, "PNG", limits)
    if header.is_interlaced or not np.asarray(loaded.crop((0, header.height - 1, header.width, header.height))).any():
        # Pillow leaves the rows black that a stream lacks when it ends as it should.
        _check_rows(header, b"".join(chunk.body for chunk in parts if chunk.name == b"IDAT"))
    image = _keyed(pixels, loaded, header, key, limits)
    by_name = {chunk.name: chunk.body for chunk in reversed(chunks) if chunk.is_right or chunk.name == b"eXIf"}
    return Picture(image, orientation_of(by_name.get(b"eXIf")), _profile(by_name.get(b"iCCP", b"")))


class _Chunks:
    """The chunks of a file, from the first to `IEND`; one whose length is damaged is left out."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left = _CHECKSUM_WALKS * len(content)

    def __iter__(self) -> Iterator[_Chunk]:
        position, parts = _SIGNATURE_BYTES, 0
        while position < len(self._content):
            parts += 1
            check_parts(parts, "the chunks of a PNG")
            chunk = self._chunk_at(position)
            if chunk is None or not (chunk.is_right or chunk.name in _NEEDED or self._leads_on(position, chunk)):
                # A damaged length: go on where the next chunk stands whose checksum is right.
                position = self._next_needed(position)
                continue
            yield chunk
            position += len(chunk.whole)
            if chunk.name == b"IEND":
                return

    def _chunk_at(self, position: int) -> _Chunk | None:
        name, end = self._content[position + 4 : position + 8], self._end_of(position)
        if end > len(self._content) or not name.isalpha():
            if name in _PIXELS:
                raise Fault(Reason.TRUNCATED, f"PNG: the file ends within a chunk {name.decode()}")
            return None
        is_right = self._is_right(position, end)
        return _Chunk(name, self._content[position + 8 : end - 4], self._content[position:end], is_right)

    def _leads_on(self, position: int, chunk: _Chunk) -> bool:
        name = position + len(chunk.whole) + 4
        return self._content[name : name + 4].isalpha()

    def _next_needed(self, position: int) -> int:
        for match in _NEXT_NEEDED.finditer(self._content, position + 8):
            start = match.start() - 4
            end = self._end_of(start)
            if end <= len(self._content) and self._is_right(start, end):
                return start
        return len(self._content)

    def _end_of(self, position: int) -> int:
        return position + 12 + int.from_bytes(self._content[position : position + 4], "big")

    def _is_right(self, position: int, end: int) -> bool:
        self._left -= end - position
        if self._left < 0:
            raise Fault(Reason.TRUNCATED, "PNG: the lengths of too many chunks are damaged")
        wanted = int.from_bytes(self._content[end - 4 : end], "big")
        return zlib.crc32(memoryview(self._content)[position + 4 : end - 4]) == wanted


def _header(content: bytes) -> _Header:
    if content[12:16] == b"CgBI":
        raise Fault(Reason.UNSUPPORTED, "a PNG of Apple's own kind (CgBI), which is not read")
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise Fault(Reason.TRUNCATED, "PNG: no whole header")
    return _Header(*struct.unpack(">IIBBxx?", content[16:29]))


def _check_rows(header: _Header, packed: bytes) -> None:
    wanted = _row_bytes(header)
    has = _inflated_bytes(packed, wanted)
    if has < wanted:
        raise Fault(Reason.TRUNCATED, f"PNG: the pixels end after {has} of {wanted} bytes")


def _row_bytes(header: _Header) -> int:
    """Return the bytes of all rows, each with its filter."""
    bits = _SAMPLES.get(header.colour, 0) * header.depth
    sizes = [
        (-(-(header.width - left) // across), -(-(header.height - top) // down))
        for left, top, across, down in (_ADAM7 if header.is_interlaced else ((0, 0, 1, 1),))
    ]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def _inflated_bytes(packed: bytes, most: int) -> int:
    """Return how many bytes a stream holds, up to `most`, without keeping them."""
    unpacker, has = zlib.decompressobj(), 0
    with suppress(zlib.error):
        while has < most and not unpacker.eof:
            piece = unpacker.decompress(packed, _PIECE_BYTES)
            has, packed = has + len(piece), unpacker.unconsumed_tail
            if not piece and not packed:
                break
    return has


def _fits(header: _Header, chunk: _Chunk) -> bool:
    # Pillow knows the transparency of palettes; colour keys are applied here.
    return header.colour == _PALETTE and 0 < len(chunk.body) <= 256


def _keyed(pixels: bytes, image: Image.Image, header: _Header, key: bytes, limits: Limits) -> Image.Image:
    if len(key) != {_GRAY: 2, _RGB: 6}.get(header.colour):
        return eight_bits(image)
    colour = np.array(struct.unpack(f">{len(key) // 2}H", key)) & ((1 << header.depth) - 1)
    is_key = _is_key(pixels, header, colour, image, limits)
    plain = eight_bits(image)
    plain.paste("white", mask=Image.fromarray(is_key))
    return plain


def _is_key(pixels: bytes, header: _Header, colour: NDArray[np.int64], image: Image.Image, limits: Limits) -> NDArray[np.bool_]:
    if header.colour == _RGB and header.depth == 16:
        # Pillow has no 16-bit colour: one reading gives the high bytes, another the low ones.
        low = load_with(pixels, "PNG", limits, "RGB;16L")
        return _equals(np.asarray(image), colour >> 8) & _equals(np.asarray(low), colour & 255)
    if header.colour == _RGB:
        return _equals(np.asarray(image), colour)
    if header.depth == 16:
        return np.asarray(np.asarray(image) == colour[0])
    return np.asarray(np.asarray(image.convert("L")) == colour[0] * (255 // ((1 << header.depth) - 1)))


def _equals(samples: NDArray[np.uint8], colour: NDArray[np.int64]) -> NDArray[np.bool_]:
    first, second, third = (samples[..., number] == colour[number] for number in range(3))
    return np.asarray(first & second & third)


def _profile(body: bytes) -> bytes | None:
    _, _, packed = body.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None
