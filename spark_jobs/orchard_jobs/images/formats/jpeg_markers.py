"""What the markers of a JPEG say: its frame, its scans, its metadata, and whether the scans hold every coefficient.

Of the entropy-coded data it knows only where they end, and how many zeros may be among them; `jpeg` has the library read them.
"""

import re
import struct
from dataclasses import dataclass, field
from itertools import count as counted

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.jpeg_zeros import MOST_REPEATED, Band, Blocks, Code, first_codes, most_zeros
from orchard_jobs.images.formats.picture import Fault, Limits, check_parts

LOSSLESS = 0xC3
_SOI, _EOI, _SOS, _DHT, _PROGRESSIVE = 0xD8, 0xD9, 0xDA, 0xC4, 0xC2
_ALONE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {0xC0, 0xC1, 0xC2, LOSSLESS}
_NOT_READ = {
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC8: "extended",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded",
    0xCB: "arithmetic-coded",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
    0xF7: "JPEG-LS",
}
_FILL = b"\xff"
# Any number of fill bytes may come before a marker; a pattern of them all would look at a long run once for each of its bytes.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
# A marker that ends entropy-coded data; neither a stuffed byte nor a restart.
_END_OF_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_EXIF, _PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"
_USUAL = {(1, 1), (2, 1), (2, 2), (1, 2), (4, 1)}
_APP0, _APP2, _APP14 = 0xE0, 0xE2, 0xEE


@dataclass
class Component:
    """A colour component of a frame.

    Attributes:
        across: its horizontal sampling factor.
        down: its vertical one.
        bits_left: of each coefficient, how many low bits are still to come; 255 before its first scan.
    """

    across: int
    down: int
    bits_left: bytearray = field(default_factory=lambda: bytearray(b"\xff" * 64))

    @property
    def area(self) -> int:
        """Samples a block of the frame."""
        return self.across * self.down


@dataclass
class Markers:
    """What `read_markers` found.

    Attributes:
        content: the file up to its end marker, without stray bytes between segments and without metadata that libjpeg warns of.
        marker: of the frame: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, 0xC3 lossless.
        components: by their identifiers.
        codes: what zero bits mean in the Huffman tables, apart from new ones.
        new_tables: segments of Huffman tables, which are seldom looked into.
        exif: the first block.
        profile_parts: pieces of a colour profile by their numbers.
    """

    content: bytes = b""
    marker: int = 0
    width: int = 0
    height: int = 0
    components: dict[int, Component] = field(default_factory=dict)
    codes: dict[int, Code] = field(default_factory=dict)
    new_tables: list[bytes] = field(default_factory=list)
    walked_samples: int = 0
    exif: bytes | None = None
    profile_parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def profile(self) -> bytes | None:
        """The embedded colour profile, or None where there is none or a piece is missing."""
        parts = [self.profile_parts[number] for number in sorted(self.profile_parts)]
        return b"".join(parts) if sorted(self.profile_parts) == list(range(1, len(parts) + 1)) and parts else None

    @property
    def has_usual_sampling(self) -> bool:
        """Whether the colours are as coarse as the library reads them: 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1, or gray."""
        first, *others = ((component.across, component.down) for component in self.components.values())
        return not others or (first in _USUAL and set(others[:2]) == {(1, 1)} and set(others[2:]) <= {first, (1, 1)})

    @property
    def unevenness(self) -> int:
        """How many times coarser a component is one way than the other; 2 of 4:2:2, 1 of 4:4:4 and 4:2:0."""
        across = max(component.across for component in self.components.values())
        down = max(component.down for component in self.components.values())
        ways = [(across * component.down, down * component.across) for component in self.components.values()]
        return max(1, *(max(pair) // (min(pair) or 1) for pair in ways))


def read_markers(content: bytes, limits: Limits) -> Markers:
    """Return what the markers say.

    Raises:
        Fault: of a kind that is not read, cut short, incomplete, over a limit.
    """
    found = Markers()
    kept, position, is_clean = [(_SOI, content[:2])], 2, True
    for number in counted():
        check_parts(number, "the segments of a JPEG")
        match = _MARKER.search(content, position)
        if match is None:
            raise _cut("the file ends before its end marker")
        marker, start = content[match.end() - 1], match.end()
        is_first_again = marker == _SOI and not found.components
        is_clean &= not content[position : match.start()].strip(_FILL) and not is_first_again
        position = start if marker in _ALONE or marker == _EOI else _end_of_segment(content, start)
        body = content[start + 2 : position]
        if marker == _SOS:
            _read_scan(found, body, limits)
            position, start = _end_of_data(content, position), position
            _check_zeros(found, body, content, start, position)
        elif marker != _EOI:
            _read_segment(found, marker, body, limits)
        if not is_first_again and marker != _APP2:
            kept.append((marker, content[match.end() - 2 : position]))
        if marker == _EOI:
            break
    _check_complete(found)
    if not is_clean and 0 < content.count(b"\n") == content.count(b"\r\n"):
        raise _cut("a JPEG that was transferred as text: each line feed follows a carriage return")
    found.content = b"".join(_calmed(marker, segment, len(found.components)) for marker, segment in kept)
    return found


def _calmed(marker: int, segment: bytes, components: int) -> bytes:
    """Return a segment without what libjpeg only warns of: a version of JFIF, a transform of Adobe's that there is not."""
    if marker == _APP0 and segment[4:9] == b"JFIF\0" and segment[9:10] != b"\1":
        return segment[:9] + b"\1" + segment[10:]
    if marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) > 15:
        # As libjpeg does: of three components YCbCr, of four YCCK.
        usual = 2 if components == 4 else 1
        return segment if segment[15] in (0, usual) else segment[:15] + bytes([usual]) + segment[16:]
    return segment


def _end_of_segment(content: bytes, start: int) -> int:
    length = int.from_bytes(content[start : start + 2], "big")
    if length < 2 or start + length > len(content):
        raise _cut(f"a segment at byte {start} has length {length}, the file {len(content)}")
    return start + length


def _end_of_data(content: bytes, start: int) -> int:
    match = _END_OF_DATA.search(content, start)
    if match is None:
        raise _cut("the file ends within a scan")
    return match.start()


def _read_segment(found: Markers, marker: int, body: bytes, limits: Limits) -> None:
    if marker in _NOT_READ:
        raise Fault(Reason.UNSUPPORTED, f"a JPEG of a kind that is not read: {_NOT_READ[marker]}")
    if marker in _FRAMES:
        _read_frame(found, marker, body, limits)
    elif marker == _DHT:
        found.new_tables.append(body)
    elif marker == 0xE1 and body.startswith(_EXIF) and found.exif is None:
        found.exif = body
    elif marker == 0xE2 and body.startswith(_PROFILE) and len(body) > 14:
        found.profile_parts.setdefault(body[12], body[14:])


def _read_frame(found: Markers, marker: int, body: bytes, limits: Limits) -> None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise _cut("the frame's header is cut short")
    bits, found.height, found.width, count = struct.unpack(">BHHB", body[:6])
    if found.components:
        raise _cut("a second frame's header")
    if bits != 8:
        raise Fault(Reason.UNSUPPORTED, f"a JPEG of {bits} bits a sample")
    if found.height == 0:
        raise Fault(Reason.UNSUPPORTED, "a JPEG whose height follows its first scan")
    if count not in (1, 3, 4):
        raise Fault(Reason.UNSUPPORTED, f"a JPEG of {count} components")
    limits.check_size(found.width, found.height)
    found.marker = marker
    for identifier, factors, _ in struct.iter_unpack("BBB", body[6 : 6 + 3 * count]):
        found.components[identifier] = Component(factors >> 4, factors & 15)
    if len(found.components) != count:
        raise Fault(Reason.UNSUPPORTED, "a JPEG of two components with one identifier")


def _read_scan(found: Markers, body: bytes, limits: Limits) -> None:
    count = body[0] if body else 0
    if not 1 <= count <= 4 or len(body) < 4 + 2 * count:
        raise _cut("a scan's header is cut short")
    first, last, bits, _ = _band(found, body)
    if not first <= last <= 63:
        raise _cut(f"a scan of the coefficients {first} to {last}")
    largest = max((component.area for component in found.components.values()), default=1) or 1
    for identifier in body[1 : 1 + 2 * count : 2]:
        if identifier not in found.components:
            raise _cut(f"a scan of component {identifier}, which the frame does not have")
        component = found.components[identifier]
        component.bits_left[first : last + 1] = bytes([bits]) * (last + 1 - first)
        found.walked_samples += found.width * found.height * component.area // largest
    limits.check_work(found.walked_samples, "the scans")


def _band(found: Markers, body: bytes) -> Band:
    if found.marker != _PROGRESSIVE:
        return Band(0, 63, 0, is_refined=False)
    first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    return Band(first, last, bits & 15, is_refined=bits > 15)


def _check_zeros(found: Markers, body: bytes, content: bytes, start: int, end: int) -> None:
    """Raise Fault where a scan, whose header is `body`, has more zero bytes in a row than can be."""
    if found.marker == LOSSLESS or content.find(bytes(MOST_REPEATED + 1), start, end) < 0:
        return
    for table in found.new_tables:
        found.codes.update(first_codes(table))
    found.new_tables.clear()
    unit = [
        Blocks(found.components[identifier].area, found.codes.get(tables >> 4), found.codes.get(16 + (tables & 15)))
        for identifier, tables in struct.iter_unpack("BB", body[1 : 1 + 2 * body[0]])
    ]
    most = most_zeros(unit, _band(found, body))
    if most is not None and (place := content.find(bytes(most + 1), start, end)) >= 0:
        raise _cut(f"more than {most} zero bytes stand at byte {place}, in place of data")


def _check_complete(found: Markers) -> None:
    if not found.components:
        raise _cut("no frame's header")
    for identifier, component in found.components.items():
        if any(component.bits_left):
            missing = next(number for number, bits in enumerate(component.bits_left) if bits)
            raise _cut(f"no scan completes coefficient {missing} of component {identifier}")


def _cut(message: str) -> Fault:
    return Fault(Reason.TRUNCATED, message)
