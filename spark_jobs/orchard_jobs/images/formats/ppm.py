"""Read PBM, PGM and PPM: samples that are written out (P1 to P3) or packed (P4 to P6). Plain text may begin like one, too."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault, Limits, Picture
from orchard_jobs.images.formats.signatures import is_text, not_an_image

_GAP = rb"(?:\s|#[^\r\n]*+[\r\n])++"
_BEGIN = re.compile(rb"P[1-6]" + _GAP + rb"[\d#]")
_NUMBER = _GAP + rb"(\d{1,10})"
_BITMAP, _SHADES = re.compile(rb"P." + 2 * _NUMBER + rb"\s"), re.compile(rb"P." + 3 * _NUMBER + rb"\s")
_COMMENT = re.compile(rb"#[^\r\n]*")
_SPACE, _DIGITS = b" \t\n\r\v\f", b"0123456789"
_TOO_LONG = re.compile(rb"\d{11}")
_HEADER_BYTES = 64 * 1024
# Taking one out costs a good part of a microsecond.
_MOST_COMMENTS = 1_000_000
# So much is turned into numbers at once.
_PIECE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class _Header:
    """What stands before the samples, which begin at `end`; of bitmaps the greatest sample is 1, and black."""

    kind: int
    width: int
    height: int
    greatest: int
    end: int

    @property
    def bands(self) -> int:
        return 3 if self.kind in (3, 6) else 1

    @property
    def count(self) -> int:
        return self.width * self.height * self.bands

    @property
    def packed_bytes(self) -> int:
        if self.kind == 4:
            return -(-self.width // 8) * self.height
        return self.count * (1 if self.greatest < 256 else 2)


def read_ppm(content: bytes, limits: Limits) -> Picture:
    """Return the picture.

    Raises:
        Fault: NOT_AN_IMAGE, text that only begins like one; TOO_COSTLY, too many comments; cut short, or over a limit.
    """
    if _BEGIN.match(content[:_HEADER_BYTES]) is None:
        raise not_an_image(content)
    is_plain = content[1:2] in b"123"
    numbers = _without_comments(content) if is_plain else content
    header = _header(numbers)
    # Text may go on with numbers by chance, but not for exactly as long as the picture of that size.
    if not is_plain and is_text(content) and not (header and len(content) == header.end + header.packed_bytes):
        raise not_an_image(content)
    if header is None or not 0 < header.greatest < 65536:
        raise Fault(Reason.TRUNCATED, "PPM: the header is cut short or damaged")
    limits.check_size(header.width, header.height)
    samples = _written_out(numbers, header) if is_plain else _packed(numbers, header)
    shape = (header.height, header.width, 3) if header.bands == 3 else (header.height, header.width)
    return Picture(Image.fromarray(_shades(samples, header).reshape(shape)))


def _without_comments(content: bytes) -> bytes:
    comments = content.count(b"#")
    if comments > _MOST_COMMENTS:
        raise Fault(Reason.TOO_COSTLY, f"PPM: {comments} comments, the limit is {_MOST_COMMENTS}")
    numbers = _COMMENT.sub(b"", content)
    if numbers[2:].translate(None, _SPACE + _DIGITS):
        raise not_an_image(content)
    return numbers


def _header(content: bytes) -> _Header | None:
    kind = int(content[1:2])
    found = (_BITMAP if kind in (1, 4) else _SHADES).match(content[:_HEADER_BYTES])
    if found is None:
        return None
    width, height, *greatest = map(int, found.groups())
    return _Header(kind, width, height, greatest[0] if greatest else 1, found.end())


def _packed(content: bytes, header: _Header) -> NDArray[np.unsignedinteger]:
    has = len(content) - header.end
    if has < header.packed_bytes:
        raise Fault(Reason.TRUNCATED, f"PPM: {has} bytes of samples, {header.packed_bytes} are needed")
    if header.kind == 4:
        rows = np.frombuffer(content, np.uint8, header.packed_bytes, header.end).reshape(header.height, -1)
        return np.unpackbits(rows, axis=1, count=header.width).reshape(-1)
    return np.frombuffer(content, "u1" if header.greatest < 256 else ">u2", header.count, header.end)


def _written_out(content: bytes, header: _Header) -> NDArray[np.unsignedinteger]:
    samples = _digits(content, header) if header.kind == 1 else _numbers(content, header)
    if len(samples) < header.count:
        raise Fault(Reason.TRUNCATED, f"PPM: {len(samples)} samples of {header.count}")
    if samples.max() > header.greatest:
        raise Fault(Reason.TRUNCATED, f"PPM: a sample of {samples.max()}, the greatest is {header.greatest}")
    return samples


def _digits(content: bytes, header: _Header) -> NDArray[np.unsignedinteger]:
    # They need no space between them.
    return np.frombuffer(content[header.end :].translate(None, _SPACE), np.uint8)[: header.count] - np.uint8(ord("0"))


def _numbers(content: bytes, header: _Header) -> NDArray[np.unsignedinteger]:
    samples, place = np.empty(header.count, np.uint16), header.end
    filled = 0
    while filled < header.count and place < len(content):
        piece = content[place : place + _PIECE_BYTES]
        if place + len(piece) < len(content):
            # Ends with a space, so that it cuts no number.
            piece = piece[: 1 + max(piece.rfind(space) for space in (b" ", b"\n", b"\r", b"\t", b"\v", b"\f"))]
        if not piece or _TOO_LONG.search(piece):
            raise Fault(Reason.TRUNCATED, f"PPM: a number of more than 10 digits after byte {place}")
        place += len(piece)
        if piece.isspace():
            continue  # NumPy would make a number of it
        numbers = np.fromstring(piece, np.int64, sep=" ")[: header.count - filled]
        samples[filled : filled + len(numbers)] = np.minimum(numbers, 65535)
        filled += len(numbers)
    return samples[:filled]


def _shades(samples: NDArray[np.unsignedinteger], header: _Header) -> NDArray[np.uint8]:
    """Return samples of 0 to the greatest as shades; gray of more than 8 bits keeps the high one of two bytes."""
    if header.greatest == 255:
        return samples.astype(np.uint8, copy=False)
    white = 65535 if header.bands == 1 and header.greatest > 255 else 255
    numbers = np.minimum(np.rint(np.arange(65536) / header.greatest * white), white).astype(np.uint16)
    table = (numbers >> 8 if white > 255 else numbers).astype(np.uint8)
    if header.kind in (1, 4):
        table = 255 - table
    shades = np.empty(len(samples), np.uint8)
    for start in range(0, len(samples), _PIECE_BYTES):
        shades[start : start + _PIECE_BYTES] = table[samples[start : start + _PIECE_BYTES]]
    return shades
