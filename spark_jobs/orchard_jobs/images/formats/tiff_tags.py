"""The tags of a TIFF's first picture, classic or BigTIFF. Knows nothing of samples."""

import math
import struct
from dataclasses import dataclass
from functools import cached_property

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault

_KINDS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}

SUBFILE, SUB_IFDS, DNG_VERSION = 254, 330, 50706
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, PLANAR = 273, 277, 278, 279, 284
LEAST_INTEGER, GREATEST_INTEGER = 280, 281
T4_OPTIONS, T6_OPTIONS, PREDICTOR, COLOUR_MAP = 292, 293, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, LEAST, GREATEST = 332, 338, 339, 340, 341
YCBCR_COEFFICIENTS, BLACK_AND_WHITE = 529, 532
JPEG_TABLES, SUBSAMPLING, ORIENTATION, PROFILE = 347, 530, 274, 34675

Numbers = tuple[int | float, ...]


@dataclass(frozen=True)
class Tags:
    """The tags of a TIFF's first picture.

    Attributes:
        content: the whole file.
        order: `<` or `>`.
        places: of each tag, its kind, its count and where its values begin.
        has_more: whether another picture follows.
    """

    content: bytes
    order: str
    places: dict[int, tuple[int, int, int]]
    has_more: bool

    def numbers(self, tag: int) -> Numbers:
        """Return a tag's values; none where it is absent or of another kind.

        Raises:
            Fault: the values lie outside the file.
        """
        kind, count, start = self.places.get(tag, (0, 0, 0))
        if kind not in _KINDS:
            return ()
        if count * struct.calcsize(_KINDS[kind]) > len(self.content) - start:
            raise Fault(Reason.TRUNCATED, f"TIFF: the {count} values of tag {tag} run out of the file")
        return struct.unpack_from(f"{self.order}{count}{_KINDS[kind]}", self.content, start)

    def ratios(self, tag: int) -> Numbers:
        """Return the values of a tag of the kind RATIONAL; none where it is absent, of another kind or cut short."""
        kind, count, start = self.places.get(tag, (0, 0, 0))
        if kind != 5 or 8 * count > len(self.content) - start:
            return ()
        pairs = struct.iter_unpack(f"{self.order}II", self.content[start : start + 8 * count])
        return tuple(above / below if below else math.inf for above, below in pairs)

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return a tag's values as integers."""
        return tuple(int(value) for value in self.numbers(tag))

    def integer(self, tag: int, default: int) -> int:
        """Return a tag's first value."""
        return next(iter(self.integers(tag)), default)

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a tag's values."""
        kind, count, start = self.places.get(tag, (0, 0, 0))
        return self.content[start : start + count] if kind in (1, 2, 6, 7) else b""

    @cached_property
    def samples(self) -> int:
        """Samples a pixel."""
        return self.integer(SAMPLES, 1)


def read_tags(content: bytes) -> Tags:
    """Return the tags of the first picture.

    Raises:
        Fault: the file ends within them.
    """
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in (b"+\x00", b"\x00+")
    try:
        return Tags(content, order, *_directory(content, order, is_big))
    except struct.error:
        raise Fault(Reason.TRUNCATED, f"TIFF: the file ends, at {len(content)} bytes, within its directory") from None


def _directory(content: bytes, order: str, is_big: bool) -> tuple[dict[int, tuple[int, int, int]], bool]:
    first, counter, entry, inline = (8, "Q", "HHQ", 8) if is_big else (4, "H", "HHI", 4)
    directory = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", content, first)[0]
    entries = struct.unpack_from(f"{order}{counter}", content, directory)[0]
    position = directory + struct.calcsize(f"={counter}")
    places = {}
    for _ in range(min(entries, len(content))):
        tag, kind, count = struct.unpack_from(f"{order}{entry}", content, position)
        position += struct.calcsize(f"={entry}") + inline
        start = position - inline
        if struct.calcsize(_KINDS.get(kind, "Q")) * count > inline:
            start = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", content, start)[0]
        if position > len(content):
            raise struct.error
        places[tag] = (kind, count, start)
    return places, any(content[position : position + inline])  # where the next directory stands
