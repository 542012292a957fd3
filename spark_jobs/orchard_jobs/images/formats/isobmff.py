"""The boxes of a HEIF file (ISO/IEC 23008-12): its items, their properties, and where their bytes lie. Decodes nothing.

No size that the file tells is believed: each box must lie within the one around it, and nothing is read twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.picture import Fault, check_parts

# What describes the pictures of a photo takes some thousands of bytes; the items' own bytes lie elsewhere.
_GREATEST_META = 4 * 1024 * 1024
_IN_FILE, _IN_META = 0, 1


@dataclass(frozen=True)
class Property:
    """A property of an item, such as its size or its colours.

    Attributes:
        kind: its box's four letters.
        body: the box's bytes.
        is_essential: whether an item must not be shown by who does not know the property.
    """

    kind: bytes
    body: bytes
    is_essential: bool = False


@dataclass
class Item:
    """A picture, or what belongs to one.

    Attributes:
        number: its name in the file.
        kind: four letters, such as `hvc1` or `grid`.
        properties: in the order in which they apply.
        content: its bytes; None where they are protected, or stored in a way that is not read.
        has_all: whether all of its bytes lie within the file.
    """

    number: int
    kind: bytes = b""
    properties: list[Property] = field(default_factory=list)
    content: bytes | None = None
    has_all: bool = True

    def bodies(self, kind: bytes) -> list[bytes]:
        """Return the properties of a kind."""
        return [one.body for one in self.properties if one.kind == kind]


@dataclass
class Container:
    """What a file's box `meta` tells.

    Attributes:
        primary: the number of the item that is shown; None where there is none.
        has_movie: whether there is a moving picture, as far as the file was read.
        items: by number.
        references: kind and number of the item that refers -> the numbers of those that it refers to, in order.
    """

    primary: int | None = None
    has_movie: bool = False
    items: dict[int, Item] = field(default_factory=dict)
    references: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)

    def item(self, number: int) -> Item:
        """Return an item; one that is only named has no kind."""
        return self.items.setdefault(number, Item(number))


class ByteReader:
    """A stretch of a file that is read from its begin to its end.

    Raises:
        Fault: TRUNCATED, when it is read beyond its end.
    """

    def __init__(self, content: bytes, start: int = 0, end: int | None = None) -> None:
        self.content, self.place, self.end = content, start, len(content) if end is None else end

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > self.end - self.place:
            raise Fault(Reason.TRUNCATED, f"HEIF: a box of the header is cut short at byte {self.place}")
        self.place += size
        return self.content[self.place - size : self.place]

    def number(self, size: int) -> int:
        """Return the next bytes as a number, most significant first; 0 of no bytes."""
        return int.from_bytes(self.take(size), "big")

    def boxes(self) -> Iterator[tuple[bytes, "ByteReader"]]:
        """Yield kind and body of each box up to the end."""
        parts = 0
        while self.place < self.end:
            parts += 1
            check_parts(parts, "the boxes of a file")
            start, size, kind = self.place, self.number(4), self.take(4)
            end = self.end if size == 0 else start + (self.number(8) if size == 1 else size)
            body, self.place = self.place, end
            if not body <= end <= self.end:
                raise Fault(Reason.TRUNCATED, f"HEIF: a box {kind!r} of {end - start} bytes at byte {start} of {self.end}")
            yield kind, ByteReader(self.content, body, self.place)


def read_container(content: bytes) -> Container:
    """Return what the header of a file tells. If that names no primary picture, the file's boxes end where the file does.

    Raises:
        Fault: TRUNCATED, the header is cut short, or a box before it; TOO_COSTLY, it is far larger than a photo's.
    """
    found = Container()
    for kind, body in ByteReader(content).boxes():
        found.has_movie |= kind == b"moov"
        if kind == b"meta":
            if body.end - body.place > _GREATEST_META:
                raise Fault(Reason.TOO_COSTLY, f"HEIF: a header of {body.end - body.place} bytes, the limit is {_GREATEST_META}")
            _read_meta(found, content, body)
        if found.primary is not None:
            break
    return found


def coding_of(content: bytes) -> str | None:
    """Return how the primary picture, or a grid's first tile, is coded, such as `hvc1`; None where the header does not tell."""
    try:
        found = read_container(content)
    except Fault:
        return None
    if found.primary is None:
        return None
    tiles = found.references.get((b"dimg", found.primary), [])
    item = found.item(found.primary)
    coded = found.item(tiles[0]) if item.kind == b"grid" and tiles else item
    return coded.kind.decode("latin-1") or None


def _read_meta(found: Container, content: bytes, meta: ByteReader) -> None:
    meta.take(4)
    boxes = dict(meta.boxes())
    empty = ByteReader(b"")
    if b"pitm" in boxes:
        pitm = boxes[b"pitm"]
        found.primary = pitm.number(2 if pitm.number(4) >> 24 == 0 else 4)
    _read_kinds(found, boxes.get(b"iinf", empty))
    _read_properties(found, dict(boxes.get(b"iprp", empty).boxes()))
    _read_references(found, boxes.get(b"iref", empty))
    _read_places(found, boxes.get(b"iloc", empty), content, boxes.get(b"idat", empty))


def _read_kinds(found: Container, iinf: ByteReader) -> None:
    if iinf.place == iinf.end:
        return
    iinf.take(2 if iinf.number(4) >> 24 == 0 else 4)
    for kind, infe in iinf.boxes():
        version = infe.number(4) >> 24
        if kind == b"infe" and version >= 2:
            item = found.item(infe.number(2 if version == 2 else 4))
            is_protected = infe.number(2) > 0
            item.kind = b"prot" if is_protected else infe.take(4)


def _read_properties(found: Container, boxes: dict[bytes, ByteReader]) -> None:
    if not {b"ipco", b"ipma"} <= boxes.keys():
        return
    known = [(kind, body.take(body.end - body.place)) for kind, body in boxes[b"ipco"].boxes()]
    ipma = boxes[b"ipma"]
    head = ipma.number(4)
    for _ in range(ipma.number(4)):
        item = found.item(ipma.number(2 if head >> 24 == 0 else 4))
        for _ in range(ipma.number(1)):
            bits = 15 if head & 1 else 7
            association = ipma.number(2 if head & 1 else 1)
            index = association & (1 << bits) - 1
            if 1 <= index <= len(known):
                item.properties.append(Property(*known[index - 1], is_essential=bool(association >> bits)))


def _read_references(found: Container, iref: ByteReader) -> None:
    if iref.place == iref.end:
        return
    size = 2 if iref.number(4) >> 24 == 0 else 4
    for kind, body in iref.boxes():
        key = (kind, body.number(size))
        found.references.setdefault(key, []).extend(body.number(size) for _ in range(body.number(2)))


def _read_places(found: Container, iloc: ByteReader, content: bytes, idat: ByteReader) -> None:
    if iloc.place == iloc.end:
        return
    version = iloc.number(4) >> 24
    sizes = iloc.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    for _ in range(iloc.number(2 if version < 2 else 4)):
        item = found.item(iloc.number(2 if version < 2 else 4))
        place = iloc.number(2) & 15 if version else _IN_FILE
        iloc.take(2)
        base, extents = iloc.number(base_size), []
        for _ in range(iloc.number(2)):
            iloc.take(index_size)
            extents.append((base + iloc.number(offset_size), iloc.number(length_size)))
        if place in (_IN_FILE, _IN_META) and item.content is None:
            _fill(item, extents, ByteReader(content) if place == _IN_FILE else idat)


def _fill(item: Item, extents: list[tuple[int, int]], source: ByteReader) -> None:
    parts, left = [], source.end - source.place
    for offset, length in extents:
        start = source.place + offset
        end = source.end if length == 0 else start + length
        # An extent list that names more bytes than the file has is as good as none.
        if start > source.end or end > source.end or end - start > left:
            item.has_all = False
            return
        left -= end - start
        parts.append(source.content[start:end])
    item.content = b"".join(parts)
