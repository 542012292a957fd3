"""Where a TIFF's samples lie: strips or tiles, planes, bits and kinds of numbers, all from the tags and all within bounds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats import tiff_tags as tags
from orchard_jobs.images.formats.picture import Fault, Limits
from orchard_jobs.images.formats.tiff_tags import Tags

NO_COMPRESSION, GROUP_4, LZW, JPEG, DEFLATE, PACKBITS = 1, 4, 5, 7, (8, 32946), 32773
CCITT = (2, 3, GROUP_4)
LZMA, ZSTANDARD, WEBP = 34925, 50000, 50001
_PREDICTED = {LZW, *DEFLATE, LZMA, ZSTANDARD}
_READ = {NO_COMPRESSION, *CCITT, JPEG, PACKBITS, WEBP, *_PREDICTED}
_NOT_READ = {
    6: "old-style JPEG",
    32766: "NeXT",
    32771: "CCITT RLE by words",
    32809: "ThunderScan",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI Log",
    34677: "SGI Log",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy DNG JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
# Colours whose samples may have a range of their own.
_RANGED = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
Bytes = NDArray[np.uint8]
# While they are unpacked or converted, at most so many rows at once.
BLOCK_ROWS = 64
# Reading a strip or tile costs as much as so many samples, however small it is.
_CHUNK_SAMPLES = 40_000


@dataclass(frozen=True)
class TiffLayout:
    """Where the samples lie, and what they are. A chunk is a strip or a tile.

    Attributes:
        samples: a pixel.
        planes: 1 where the samples of a pixel lie together, else one for each sample.
        bits: a sample.
        kind: `u`, `i` or `f`.
        chunk_width: pixels.
        chunk_rows: rows of pixels.
        across: chunks side by side.
        down: chunks above each other.
        unit: of YCbCr, pixels across and down that share a colour; (1, 1) where each has its own.
        has_range: whether tags tell another range of 9 to 16 bits than all that there are.
    """

    order: str
    width: int
    height: int
    samples: int
    planes: int
    bits: int
    kind: str
    compression: int
    predictor: int
    chunk_width: int
    chunk_rows: int
    is_tiled: bool
    unit: tuple[int, int]
    has_range: bool

    @property
    def across(self) -> int:
        return -(-self.width // self.chunk_width)

    @property
    def down(self) -> int:
        return -(-self.height // self.chunk_rows)

    @property
    def chunks(self) -> int:
        return self.planes * self.across * self.down

    @property
    def chunk_samples(self) -> int:
        """Samples a pixel within a chunk."""
        return self.samples if self.planes == 1 else 1

    @property
    def row_bytes(self) -> int:
        """Of one row of a chunk, uncompressed; with shared colours, of one row of units."""
        if self.unit != (1, 1):
            return -(-self.chunk_width // self.unit[0]) * (self.unit[0] * self.unit[1] + 2)
        return -(-self.chunk_width * self.chunk_samples * self.bits // 8)

    @property
    def is_wide(self) -> bool:
        """Whether the range of all samples decides what a value means."""
        return self.kind != "u" or self.bits > 16 or self.has_range

    @property
    def kept(self) -> str:
        """NumPy's name of the numbers that are kept of a picture."""
        return f"{self.kind}{-(-self.bits // 8)}" if self.is_wide else "u1"

    def rows_of(self, number: int) -> int:
        """Return how many rows of pixels a chunk holds: the last strip ends with the picture."""
        row = number % (self.across * self.down) // self.across * self.chunk_rows
        return self.chunk_rows if self.is_tiled else min(self.chunk_rows, self.height - row)


def read_layout(found: Tags, limits: Limits) -> TiffLayout:
    """Return where the samples lie.

    Raises:
        Fault: of a kind that is not read, cut short, over a limit.
    """
    width, height = found.integer(tags.WIDTH, 0), found.integer(tags.HEIGHT, 0)
    limits.check_size(width, height)
    bits, kind = _sample(found)
    compression, predictor = _compression(found)
    is_tiled = tags.TILE_WIDTH in found.places
    chunk_width = found.integer(tags.TILE_WIDTH, 0) if is_tiled else width
    chunk_rows = found.integer(tags.TILE_HEIGHT, 0) if is_tiled else min(found.integer(tags.ROWS_PER_STRIP, height), height)
    if chunk_width < 1 or chunk_rows < 1:
        raise Fault(Reason.TRUNCATED, f"TIFF: tiles or strips of {chunk_width} x {chunk_rows} pixels")
    planes = found.samples if found.integer(tags.PLANAR, 1) == 2 else 1
    layout = TiffLayout(
        found.order,
        width,
        height,
        found.samples,
        planes,
        bits,
        kind,
        compression,
        predictor,
        chunk_width,
        chunk_rows,
        is_tiled,
        _unit(found, compression),
        _has_range(found, bits, kind),
    )
    _check_cost(layout, limits)
    return layout


def _sample(found: Tags) -> tuple[int, str]:
    bits, formats = found.integers(tags.BITS) or (1,), found.integers(tags.SAMPLE_FORMAT) or (1,)
    if not 1 <= found.samples <= tags.MOST_SAMPLES or len(set(bits)) > 1 or len(set(formats)) > 1 or formats[0] not in _KINDS:
        raise Fault(Reason.UNSUPPORTED, f"a TIFF of {found.samples} samples with {bits[:8]} bits, formats {formats[:8]}")
    kind = _KINDS[formats[0]]
    sizes = {"u": (*range(1, 17), 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}[kind]
    if bits[0] not in sizes:
        raise Fault(Reason.UNSUPPORTED, f"a TIFF of {bits[0]} bits a sample, sample format {formats[0]}")
    return bits[0], kind


def _compression(found: Tags) -> tuple[int, int]:
    compression = found.integer(tags.COMPRESSION, NO_COMPRESSION)
    if compression not in _READ:
        name = _NOT_READ.get(compression, "unknown")
        raise Fault(Reason.UNSUPPORTED, f"a TIFF with compression {compression} ({name}), which is not read")
    predictor = found.integer(tags.PREDICTOR, 1)
    if predictor != 1 and compression not in _PREDICTED:
        # Some readers apply it there, others do not.
        raise Fault(Reason.UNSUPPORTED, f"a TIFF with compression {compression} and predictor {predictor}")
    return compression, predictor


def _unit(found: Tags, compression: int) -> tuple[int, int]:
    if found.integer(tags.PHOTOMETRIC, -1) != YCBCR or compression in (JPEG, WEBP):
        return 1, 1
    unit = (*found.integers(tags.SUBSAMPLING), 2, 2)[:2] if tags.SUBSAMPLING in found.places else (2, 2)
    if unit[0] not in (1, 2, 4) or unit[1] not in (1, 2, 4):
        raise Fault(Reason.UNSUPPORTED, f"a TIFF whose colours are shared by {unit[0]} x {unit[1]} pixels")
    return unit[0], unit[1]


def _has_range(found: Tags, bits: int, kind: str) -> bool:
    if kind != "u" or not 8 < bits <= 16 or found.integer(tags.PHOTOMETRIC, -1) not in _RANGED:
        return False
    return found.sample_range(is_float=False) not in (None, (0, (1 << bits) - 1))


def _check_cost(layout: TiffLayout, limits: Limits) -> None:
    pixels = layout.width * layout.height
    kept = pixels * layout.samples * int(layout.kept[1:])
    # A chunk is there twice while it is read, as the library's and as ours.
    chunk = 2 * layout.row_bytes * layout.chunk_rows
    what = f"strips or tiles of {layout.chunk_width} x {layout.chunk_rows} pixels"
    limits.check_memory(kept + chunk + 4 * pixels, what)
    samples = layout.chunk_width * layout.chunk_rows * layout.chunk_samples
    limits.check_work(layout.chunks * (samples + _CHUNK_SAMPLES), f"{layout.chunks} {what}")
