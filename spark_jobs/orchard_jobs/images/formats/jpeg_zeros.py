"""How many zero bytes may follow each other in a scan of a JPEG. More of them stand in place of lost data, although they decode.

Zero bits are the first code of a Huffman table (ITU-T T.81, annex C). They mean a flat area where that code says that nothing
follows. Elsewhere they mean a coefficient that is repeated with one sign, which no picture goes on with for long.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Of coefficients that are repeated. The longest run is 8 in 10,000 photos, and 7 in drawn pictures.
MOST_REPEATED = 16
# Bits that correct coefficients are stored as they are, after a code for many blocks. libjpeg holds back no more than 1,000.
_MOST_CORRECTED = 160
_COUNTS = 16
# A narrower band of coefficients can be the same in each block of a regular pattern.
_LEAST_BAND = 42
# DC coefficients have 11 bits, so they cannot fall by more.
_DC_RANGE = 2047


class Code(NamedTuple):
    """What zero bits mean in a Huffman table: the first code's length, and its symbol."""

    length: int
    symbol: int

    @property
    def extra_bits(self) -> int:
        """Bits of the coefficient that follows the code."""
        return self.symbol & 15

    @property
    def ends_block(self) -> bool:
        """Whether the rest of this block, or of several, is zero."""
        return self.extra_bits == 0 and self.symbol >> 4 < 15


class Blocks(NamedTuple):
    """The blocks of one component in a unit of a scan, and its codes; None of a table that is missing."""

    number: int
    dc: Code | None
    ac: Code | None


class Band(NamedTuple):
    """Which coefficients a scan brings, from `first` to `last`, and how many of their low bits are left out."""

    first: int
    last: int
    bits_left: int
    is_refined: bool


def first_codes(body: bytes) -> Iterator[tuple[int, Code]]:
    """Yield the class and number of each table of a segment DHT, as one byte, and the table's first code."""
    while len(body) > _COUNTS:
        counts, symbols = body[1 : 1 + _COUNTS], body[1 + _COUNTS :]
        if any(counts) and symbols:
            yield body[0], Code(next(length for length, count in enumerate(counts, 1) if count), symbols[0])
        body = symbols[sum(counts) :]


def most_zeros(unit: Sequence[Blocks], band: Band) -> int | None:
    """Return how many zero bytes may follow each other; None where any number may.

    Args:
        unit: of each component of the scan.
        band: 0 to 63 where the scan is not progressive.
    """
    if not all((blocks.dc or band.first) and (blocks.ac or not band.last) for blocks in unit):
        return None
    repeats = [not blocks.ac.ends_block for blocks in unit if blocks.ac and band.last]
    if band.is_refined:
        return _MOST_CORRECTED if any(repeats) else None
    if any(repeats):
        return MOST_REPEATED if band.last - band.first >= _LEAST_BAND else None
    return None if band.first else _most_falling(unit, band)


def _most_falling(unit: Sequence[Blocks], band: Band) -> int | None:
    """Return how many zero bytes it takes for the DC coefficients to fall through their range, block by block."""
    fall = max(blocks.number * ((1 << blocks.dc.extra_bits) - 1) << band.bits_left for blocks in unit if blocks.dc)
    if fall == 0:
        return None
    bits = sum(
        blocks.number * (blocks.dc.length + blocks.dc.extra_bits + (blocks.ac.length if blocks.ac and band.last else 0))
        for blocks in unit
        if blocks.dc
    )
    return MOST_REPEATED + bits * (_DC_RANGE // fall + 1) // 8
