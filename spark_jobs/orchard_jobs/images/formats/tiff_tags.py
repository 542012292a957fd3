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

# A pixel; tags that say something of each have no more values.
MOST_SAMPLES = 64
_MOST_ENTRIES = 1 << 16
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

    def numbers(self, tag: int, most: int) -> Numbers:
        """Return a tag's values, the first `most` of them; none where it is absent or of another kind.

        Raises:
            Fault: the values lie outside the file.
        """
        kind, count, start = self.places.get(tag, (0, 0, 0))
        if kind not in _KINDS:
            return ()
        if count * struct.calcsize(_KINDS[kind]) > len(self.content) - start:
            raise Fault(Reason.TRUNCATED, f"TIFF: the {count} values of tag {tag} run out of the file")
        return struct.unpack_from(f"{self.order}{min(count, most)}{_KINDS[kind]}", self.content, start)

    def ratios(self, tag: int, most: int) -> Numbers:
        """Return the first values of a tag of the kind RATIONAL; none where it is absent, of another kind or cut short."""
        kind, count, start = self.places.get(tag, (0, 0, 0))
        if kind != 5 or 8 * count > len(self.content) - start:
            return ()
        pairs = struct.iter_unpack(f"{self.order}II", self.content[start : start + 8 * min(count, most)])
        return tuple(above / below if below else math.inf for above, below in pairs)

    def integers(self, tag: int, most: int = MOST_SAMPLES) -> tuple[int, ...]:
        """Return a tag's first values as integers."""
        return tuple(int(value) for value in self.numbers(tag, most))

    def integer(self, tag: int, default: int) -> int:
        """Return a tag's first value."""
        return next(iter(self.integers(tag, 1)), default)

    def sample_range(self, is_float: bool) -> tuple[float, float] | None:
        """Return the least and the greatest sample that the tags tell; the older pair of tags is for integers alone."""
        for low, high in ((LEAST, GREATEST), (LEAST_INTEGER, GREATEST_INTEGER))[: 1 if is_float else 2]:
            least = min(self.numbers(low, MOST_SAMPLES), default=0)
            greatest = max(self.numbers(high, MOST_SAMPLES), default=0)
            if least < greatest:
                return least, greatest
        return None

    def raw(self, tag: int, most: int) -> bytes:
        """Return the bytes of a tag's values; none of a tag that has more than `most`."""
        kind, count, start = self.places.get(tag, (0, 0, 0))
        return self.content[start : start + count] if count <= most and kind in (1, 2, 6, 7) else b""

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
    if entries > _MOST_ENTRIES:
        raise Fault(Reason.TRUNCATED, f"TIFF: a directory of {entries} entries, but there are only {_MOST_ENTRIES} tags")
    position = directory + struct.calcsize(f"={counter}")
    places = {}
    for _ in range(entries):
        tag, kind, count = struct.unpack_from(f"{order}{entry}", content, position)
        position += struct.calcsize(f"={entry}") + inline
        start = position - inline
        if struct.calcsize(_KINDS.get(kind, "Q")) * count > inline:
            start = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", content, start)[0]
        if position > len(content):
            raise struct.error
        places[tag] = (kind, count, start)
    return places, any(content[position : position + inline])  # where the next directory stands
