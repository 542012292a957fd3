"""The bytes of a TIFF's strips and tiles, uncompressed, as they were before compression.

Behind Pillow, libtiff uncompresses what the standard library cannot: chunks are put into a TIFF of plain bytes, so that neither
takes them for samples.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats import tiff_tags as tags
from orchard_jobs.images.formats.group4 import is_read_to_its_end
from orchard_jobs.images.formats.jpeg import read_samples
from orchard_jobs.images.formats.jpeg_markers import read_markers
from orchard_jobs.images.formats.picture import Fault, Limits
from orchard_jobs.images.formats.stock import load_with
from orchard_jobs.images.formats.tiff_layout import CCITT, DEFLATE, GROUP_4, JPEG, NO_COMPRESSION, WEBP, YCBCR, Bytes, TiffLayout
from orchard_jobs.images.formats.tiff_tags import Tags

# Opening a file costs more than reading a short strip.
_GROUP_BYTES = 4 * 1024 * 1024
# Writers round the last strip up.
_SPARE_PIXELS = 65536
# How often strips or tiles may read the file; equal ones may share their bytes, of which small files have more.
_READS, _SHARED_BYTES = 8, 16 * 1024 * 1024
# All tables of a JPEG take less.
_MOST_TABLES = 65536
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1).tobytes()
_SHORT, _LONG = 3, 4


def read_chunks(found: Tags, layout: TiffLayout, limits: Limits) -> Iterator[tuple[int, Bytes]]:
    """Yield each chunk's number and its bytes: [rows, bytes a row], or of JPEG and WebP its samples [rows, width, samples].

    Raises:
        Fault: a chunk is missing, runs out of the file or ends early; together they cost too much.
    """
    places = _places(found, layout)
    if layout.compression in (JPEG, WEBP):
        pictures = _InnerPictures(found, layout, limits)
        for number, (start, size) in enumerate(places):
            yield number, pictures.read(found.content[start : start + size])
        return
    for first, last in _groups(layout, len(places)):
        rows = [_stored_rows(layout, number) for number in range(first, last)]
        packed = [found.content[start : start + size] for start, size in places[first:last]]
        group = _uncompressed(found, layout, packed, rows, limits)
        ends = np.cumsum(rows)
        for number, (end, count) in enumerate(zip(ends, rows, strict=True), first):
            yield number, group[end - count : end]


def _places(found: Tags, layout: TiffLayout) -> list[tuple[int, int]]:
    """Return where each chunk begins, and its bytes."""
    wanted, length = layout.chunks, len(found.content)
    starts = found.integers(tags.TILE_OFFSETS, wanted) or found.integers(tags.STRIP_OFFSETS, wanted)
    sizes = found.integers(tags.TILE_SIZES, wanted) or found.integers(tags.STRIP_SIZES, wanted)
    if len(starts) < wanted or 0 < len(sizes) < wanted:
        raise Fault(Reason.TRUNCATED, f"TIFF: {len(starts)} strips or tiles of {wanted}")
    ends = sorted({*starts, length})
    sizes = sizes or tuple(ends[min(bisect_right(ends, start), len(ends) - 1)] - start for start in starts)
    for start, size in zip(starts, sizes, strict=True):
        if start < 0 or size < 0 or start + size > length:
            raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile ends at byte {start + size} of {length}")
    if sum(sizes) > _READS * length + _SHARED_BYTES:
        raise Fault(Reason.TOO_COSTLY, f"TIFF: {wanted} strips or tiles share a file of {length} bytes, {sum(sizes)} in all")
    return list(zip(starts, sizes, strict=True))


def _stored_rows(layout: TiffLayout, number: int) -> int:
    return -(-layout.rows_of(number) // layout.unit[1])


def _groups(layout: TiffLayout, count: int) -> Iterator[tuple[int, int]]:
    a_plane = layout.across * layout.down
    step = max(1, _GROUP_BYTES // max(1, layout.row_bytes * layout.chunk_rows))
    for plane in range(0, count, a_plane):
        for first in range(plane, plane + a_plane, step):
            yield first, min(first + step, plane + a_plane)


def _uncompressed(found: Tags, layout: TiffLayout, packed: list[bytes], rows: list[int], limits: Limits) -> Bytes:
    if layout.compression in (NO_COMPRESSION, *DEFLATE):
        if found.integer(tags.FILL_ORDER, 1) == 2:
            # As libtiff does: the order is that of the bytes in the file, before they are uncompressed.
            packed = [content.translate(_REVERSED) for content in packed]
        parts = [_plain(layout, content, count) for content, count in zip(packed, rows, strict=True)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    content = _file_of_bytes(found, layout, packed, rows)
    try:
        # Not the picture's pixels but its bytes are judged here: their number was checked with the layout.
        image = load_with(content, "TIFF", Limits(max(limits.pixels, 8 * limits.memory_bytes)))
    except MemoryError:
        raise
    except Exception as error:
        raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile cannot be uncompressed: {error}") from error
    samples = np.asarray(image)
    if layout.compression == GROUP_4 and tags.STRIP_SIZES in found.places:
        _check_group_4(found, packed, np.split(samples, np.cumsum(rows)[:-1]))
    return np.packbits(samples, axis=1) if layout.compression in CCITT else samples


def _check_group_4(found: Tags, packed: list[bytes], parts: list[NDArray[np.bool_]]) -> None:
    is_reversed = found.integer(tags.FILL_ORDER, 1) == 2
    for content, part in zip(packed, parts, strict=True):
        if not is_read_to_its_end(content.translate(_REVERSED) if is_reversed else content, part):
            raise Fault(Reason.TRUNCATED, "TIFF: damaged data of CCITT's Group 4")


def _plain(layout: TiffLayout, content: bytes, rows: int) -> Bytes:
    wanted = rows * layout.row_bytes
    if layout.compression in DEFLATE:
        content = _inflated(content, layout.chunk_rows * layout.row_bytes)
    if len(content) < wanted:
        raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile of {len(content)} bytes, {wanted} are needed")
    return np.frombuffer(content, np.uint8, wanted).reshape(rows, layout.row_bytes)


def _inflated(content: bytes, most_bytes: int) -> bytes:
    # libtiff would stop at the last byte that it needs, before the checksum that tells damage.
    unpacker = zlib.decompressobj()
    try:
        inflated = unpacker.decompress(content, most_bytes)
        beyond = unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile cannot be uncompressed: {error}") from error
    if beyond:
        raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile holds more than its {most_bytes} bytes")
    if not unpacker.eof:
        raise Fault(Reason.TRUNCATED, "TIFF: a strip or tile ends before the end of its compressed data")
    return inflated


def _file_of_bytes(found: Tags, layout: TiffLayout, packed: list[bytes], rows: list[int]) -> bytes:
    """Return a TIFF of 8-bit gray samples (CCITT: of single bits), one strip a chunk."""
    is_fax = layout.compression in CCITT
    entries = {
        tags.WIDTH: [layout.chunk_width if is_fax else layout.row_bytes],
        tags.HEIGHT: [sum(rows)],
        tags.BITS: [1 if is_fax else 8],
        tags.COMPRESSION: [layout.compression],
        tags.PHOTOMETRIC: [1],
        tags.FILL_ORDER: [found.integer(tags.FILL_ORDER, 1)],
        tags.STRIP_OFFSETS: [0] * len(packed),
        tags.SAMPLES: [1],
        tags.ROWS_PER_STRIP: [rows[0]],
        tags.STRIP_SIZES: [len(content) for content in packed],
        tags.T4_OPTIONS: [found.integer(tags.T4_OPTIONS, 0)],
        tags.T6_OPTIONS: [found.integer(tags.T6_OPTIONS, 0)],
    }
    arrays = 8 + 2 + 12 * len(entries) + 4
    start = arrays + 8 * len(packed)
    entries[tags.STRIP_OFFSETS] = [start + int(end) for end in np.cumsum([0, *entries[tags.STRIP_SIZES][:-1]])]
    directory, values = [struct.pack("<H", len(entries))], b""
    for tag, numbers in sorted(entries.items()):
        if len(numbers) == 1:
            directory.append(struct.pack("<HHII", tag, _LONG, 1, numbers[0]))
        else:
            directory.append(struct.pack("<HHII", tag, _LONG, len(numbers), arrays + len(values)))
            values += struct.pack(f"<{len(numbers)}I", *numbers)
    return b"II*\0\x08\0\0\0" + b"".join(directory) + bytes(4) + values.ljust(8 * len(packed), b"\0") + b"".join(packed)


class _InnerPictures:
    """The JPEG or WebP pictures in strips or tiles. What they cost counts together, for there can be thousands."""

    def __init__(self, found: Tags, layout: TiffLayout, limits: Limits) -> None:
        if layout.bits != 8 or layout.kind != "u":
            raise Fault(Reason.UNSUPPORTED, f"a TIFF with JPEG or WebP inside and {layout.bits} bits a sample")
        self._layout, self._limits = layout, limits
        # Adobe's marker tells libjpeg what the TIFF says of the colours; else it would go by the chunk's own markers.
        transform = found.integer(tags.PHOTOMETRIC, 1) == YCBCR
        self._tables = b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])
        self._tables += found.raw(tags.JPEG_TABLES, _MOST_TABLES)[2:-2]
        # Whatever its own header says, no chunk may cost more than a chunk.
        self._area = layout.chunk_width * layout.chunk_rows
        self._inner = Limits(min(limits.pixels, 2 * self._area + _SPARE_PIXELS), least_pixels=0)
        self._walked = 0

    def read(self, content: bytes) -> Bytes:
        """Return the samples [rows, width, samples] of the next picture."""
        try:
            samples = self._webp(content) if self._layout.compression == WEBP else self._jpeg(content)
        except Fault as fault:
            if fault.reason != Reason.OVER_PIXEL_LIMIT:
                raise
            raise Fault(Reason.TRUNCATED, f"TIFF: a strip or tile of {self._area} pixels holds a picture of {fault}") from fault
        return samples.reshape(*samples.shape[:2], -1)

    def _webp(self, content: bytes) -> Bytes:
        samples = np.asarray(load_with(content, "WEBP", self._inner))
        self._count(samples.size)
        return samples

    def _jpeg(self, content: bytes) -> Bytes:
        header, scan, data = content[2:].partition(b"\xff\xda")
        header = header.replace(b"JFIF\0", b"none\0").replace(b"Adobe", b"other")
        markers = read_markers(self._tables + header + scan + data, self._inner)
        self._count(markers.walked_samples)
        return read_samples(markers)

    def _count(self, samples: int) -> None:
        self._walked += samples
        self._limits.check_work(self._walked, "the pictures in strips or tiles")
