"""Read the primary picture of a HEIC file: HEVC, whole or in tiles. Thumbnails, depth and gain maps are left alone.

Rotation and mirroring are boxes of the file here. EXIF repeats them, so it is not asked. The header is judged before any
picture is decoded, and the whole picture must be there. Its planes are reduced, then put together as RGB.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.cicp import profile_of
from orchard_jobs.images.formats.hevc import Planes, Vui, check_installed, decode_hevc
from orchard_jobs.images.formats.isobmff import ByteReader, Container, Item, read_container
from orchard_jobs.images.formats.picture import Fault, Limits, Picture
from orchard_jobs.images.formats.ycbcr import to_rgb

# Properties that say nothing about pixels, or are applied below.
_KNOWN = {b"hvcC", b"ispe", b"pixi", b"colr", b"irot", b"imir", b"clap", b"auxC", b"pasp", b"clli", b"mdcv", b"amve", b"cclv"}
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
# What libde265 notes down of a pixel's coding while it decodes, at most.
_NOTES_BYTES = 3
# Samples a pixel, by the number of the chroma format.
_SAMPLES = {0: 1.0, 1: 1.5, 2: 2.0, 3: 3.0}
# Where the pixels of a square of 2 x 2 lie -> EXIF's number of how it must be turned to get there.
_TURNS: dict[tuple[int, ...], int] = {
    (0, 1, 2, 3): 1,
    (1, 0, 3, 2): 2,
    (3, 2, 1, 0): 3,
    (2, 3, 0, 1): 4,
    (0, 2, 1, 3): 5,
    (2, 0, 3, 1): 6,
    (3, 1, 2, 0): 7,
    (1, 3, 0, 2): 8,
}
Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class _Coded:
    """A picture as the header tells it: its tiles in rows of `columns`, and the part of them that is shown."""

    tiles: list[Item]
    columns: int
    width: int
    height: int
    tile: tuple[int, int]


def read_heic(content: bytes, limits: Limits) -> Picture:
    """Return the primary picture, with its transparency if it has any."""
    check_installed()
    container = read_container(content)
    if container.primary is None:
        kind = "HEIC sequence" if container.has_movie else "whole HEIF file"
        raise Fault(Reason.UNSUPPORTED, f"a {kind} without a primary picture")
    primary = container.item(container.primary)
    coded, alpha = _coded(container, primary), _alpha(container, primary)
    orientation, crop = _shown(primary, coded)
    reduction = 1 if alpha else limits.reduction(crop[2] - crop[0], crop[3] - crop[1])
    _check_cost(limits, coded, alpha, reduction)
    planes = _decoded(coded)
    colours = _nclx([primary, coded.tiles[0]]) or planes.vui
    image = to_rgb(_cropped(planes, crop), reduction, colours.matrix, colours.is_full_range)
    profile = _icc([primary, coded.tiles[0]]) or profile_of(colours.primaries, colours.transfer, image.mode == "L")
    if alpha:
        is_premultiplied = (b"prem", primary.number) in container.references
        image = _with_alpha(image, _decoded(alpha), crop, is_premultiplied)
    return Picture(image, orientation, profile, reduction, (crop[2] - crop[0], crop[3] - crop[1]))


def _coded(container: Container, item: Item) -> _Coded:
    """Return how a picture is put together; Fault where that is not whole, or not known."""
    unknown = [one.kind for one in item.properties if one.is_essential and one.kind not in _KNOWN]
    if unknown:
        raise Fault(Reason.UNSUPPORTED, f"HEIF: a picture with the property {unknown[0]!r}, which is not known")
    if item.kind == b"hvc1":
        width, height = _size(item)
        return _Coded([item], 1, width, height, (width, height))
    if item.kind != b"grid":
        raise Fault(Reason.UNSUPPORTED, f"a HEIF picture that is coded as {item.kind!r}, which is not read")
    grid = ByteReader(_content(item))
    size = 4 if grid.number(2) & 1 else 2
    rows, columns = grid.number(1) + 1, grid.number(1) + 1
    width, height = grid.number(size), grid.number(size)
    tiles = [container.item(number) for number in container.references.get((b"dimg", item.number), [])]
    return _grid(tiles, rows, columns, width, height)


def _grid(tiles: list[Item], rows: int, columns: int, width: int, height: int) -> _Coded:
    if len(tiles) != rows * columns:
        raise Fault(Reason.TRUNCATED, f"HEIF: {len(tiles)} tiles for a grid of {columns} x {rows}")
    if other := next((tile for tile in tiles if tile.kind != b"hvc1"), None):
        missing = Fault(Reason.TRUNCATED, "HEIF: a tile of the grid is not there")
        raise Fault(Reason.UNSUPPORTED, f"a HEIF grid of tiles that are coded as {other.kind!r}") if other.kind else missing
    across, down = _size(tiles[0])
    fits = (columns - 1) * across < width <= columns * across and (rows - 1) * down < height <= rows * down
    if not fits or any(_size(tile) != (across, down) for tile in tiles):
        raise Fault(Reason.TRUNCATED, f"HEIF: tiles of {across} x {down} do not make a grid of {width} x {height}")
    return _Coded(tiles, columns, width, height, (across, down))


def _size(item: Item) -> tuple[int, int]:
    body = ByteReader(next(iter(item.bodies(b"ispe")), b""))
    body.take(4)
    return body.number(4), body.number(4)


def _content(item: Item) -> bytes:
    if not item.has_all:
        raise Fault(Reason.TRUNCATED, "HEIF: the file ends before the picture's data do")
    if item.content is None:
        raise Fault(Reason.UNSUPPORTED, f"HEIF: data of a picture {item.kind!r} that are stored in a way which is not read")
    return item.content


def _alpha(container: Container, primary: Item) -> _Coded | None:
    for (kind, number), shown in container.references.items():
        item = container.item(number)
        if kind == b"auxl" and primary.number in shown and any(body[4:].startswith(_ALPHA) for body in item.bodies(b"auxC")):
            return _coded(container, item)
    return None


def _shown(item: Item, coded: _Coded) -> tuple[int, tuple[int, int, int, int]]:
    """Return EXIF's number of how a picture is turned, and the part of it that is shown: left, top, right, lower."""
    turned, crop = np.arange(4).reshape(2, 2), (0, 0, coded.width, coded.height)
    for one in item.properties:
        if one.kind == b"irot":
            turned = np.rot90(turned, ByteReader(one.body).number(1) & 3)
        elif one.kind == b"imir":
            turned = np.flip(turned, ByteReader(one.body).number(1) & 1)
        elif one.kind == b"clap":
            if turned.ravel().tolist() != [0, 1, 2, 3]:
                raise Fault(Reason.UNSUPPORTED, "HEIF: a picture that is cropped after it is turned")
            crop = _clap(ByteReader(one.body), coded)
    return _TURNS[tuple(turned.ravel().tolist())], crop


def _clap(body: ByteReader, coded: _Coded) -> tuple[int, int, int, int]:
    """Return the part that a clean aperture leaves: its size and the distance of the centres, as fractions."""
    numbers = [int.from_bytes(body.take(4), "big", signed=True) for _ in range(8)]
    width, height, right, down = (
        Fraction(top, bottom) if bottom > 0 else Fraction(-1) for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)
    )
    left, top = (coded.width - width) / 2 + right, (coded.height - height) / 2 + down
    crop = (floor(left), floor(top), floor(left) + floor(width), floor(top) + floor(height))
    if not (0 <= crop[0] < crop[2] <= coded.width and 0 <= crop[1] < crop[3] <= coded.height):
        raise Fault(Reason.TRUNCATED, f"HEIF: a part {crop} of a picture of {coded.width} x {coded.height}")
    return crop


def _check_cost(limits: Limits, coded: _Coded, alpha: _Coded | None, reduction: int) -> None:
    """Raise Fault where decoding takes too much, as the header tells."""
    limits.check_size(coded.width, coded.height)
    planes = [coded, alpha] if alpha else [coded]
    needed, walked = 11 * coded.width * coded.height // reduction**2, 0.0
    for one in planes:
        hvcc = _hvcc(one.tiles[0])
        samples, size = _SAMPLES[hvcc[16] & 3], 1 if hvcc[17] & 7 == 0 else 2
        pixels = one.tile[0] * one.tile[1]
        needed += int(one.width * one.height * samples + pixels * (samples * (size + 1) + _NOTES_BYTES))
        walked += samples * pixels * len(one.tiles)
    limits.check_memory(needed, f"HEVC: {coded.width} x {coded.height} pixels")
    limits.check_work(int(walked), "HEVC: the tiles")


def _decoded(coded: _Coded) -> Planes:
    """Return the planes of a whole picture."""
    if len(coded.tiles) == 1:
        return _tile(coded.tiles[0], coded)
    canvas: list[Plane] = []
    for number, item in enumerate(coded.tiles):
        tile = _tile(item, coded)
        if not canvas:
            first = tile
            canvas = [_canvas(coded, *first.step(plane)) for plane in range(len(first.samples))]
        if (len(tile.samples), tile.subsampling) != (len(first.samples), first.subsampling):
            raise Fault(Reason.TRUNCATED, "HEIF: tiles of one grid with different colours")
        row, column = divmod(number, coded.columns)
        for plane, samples in enumerate(tile.samples):
            across, down = first.step(plane)
            left, top = column * coded.tile[0] // across, row * coded.tile[1] // down
            part = canvas[plane][top : top + samples.shape[0], left : left + samples.shape[1]]
            part[:] = samples[: part.shape[0], : part.shape[1]]
    return Planes(tuple(canvas), first.subsampling, first.vui)


def _canvas(coded: _Coded, across: int, down: int) -> Plane:
    return np.empty((-(-coded.height // down), -(-coded.width // across)), np.uint8)


def _tile(item: Item, coded: _Coded) -> Planes:
    """Return a tile, of no other size than the header tells."""
    width, height = coded.tile
    planes = decode_hevc(_units(item), width, height)
    found = planes.samples[0].shape
    if found[0] < height or found[1] < width:
        raise Fault(
            Reason.TRUNCATED, f"HEVC: a picture of {found[1]} x {found[0]} pixels, where the header says {width} x {height}"
        )
    steps = [planes.step(plane) for plane in range(len(planes.samples))]
    cut = (one[: -(-height // down), : -(-width // across)] for one, (across, down) in zip(planes.samples, steps, strict=True))
    return Planes(tuple(cut), planes.subsampling, planes.vui)


def _units(item: Item) -> list[bytes]:
    """Return the NAL units of a picture, parameter sets first."""
    hvcc = _hvcc(item)
    sets = ByteReader(hvcc, 22)
    units = []
    for _ in range(sets.number(1)):
        sets.take(1)
        units += [sets.take(sets.number(2)) for _ in range(sets.number(2))]
    data, size = ByteReader(_content(item)), (hvcc[21] & 3) + 1
    if data.place == data.end:
        raise Fault(Reason.TRUNCATED, "HEIF: a picture without data")
    while data.place < data.end:
        units.append(data.take(data.number(size)))
    # The last byte of a unit holds the bit that ends it, and within it a 3 follows any two zeros (H.265, 7.4.2).
    if any(not unit or unit.endswith(b"\0") or b"\0\0\0" in unit for unit in units):
        raise Fault(Reason.TRUNCATED, "HEVC: zero bytes stand in place of data")
    return units


def _hvcc(item: Item) -> bytes:
    found = next(iter(item.bodies(b"hvcC")), b"")
    if len(found) < 23:
        raise Fault(Reason.TRUNCATED, "HEIF: a picture without the header of its data")
    return found


def _cropped(planes: Planes, crop: tuple[int, int, int, int]) -> Planes:
    left, top, right, lower = crop
    samples = []
    for plane, one in enumerate(planes.samples):
        across, down = planes.step(plane)
        samples.append(one[top // down : -(-lower // down), left // across : -(-right // across)])
    return Planes(tuple(samples), planes.subsampling, planes.vui)


def _nclx(items: list[Item]) -> Vui | None:
    for body in _colr(items, b"nclx"):
        body.take(4)
        return Vui(body.number(2), body.number(2), body.number(2), body.number(1) > 127)
    return None


def _icc(items: list[Item]) -> bytes | None:
    return next((body.content[4:] for body in _colr(items, b"prof", b"rICC")), None)


def _colr(items: list[Item], *kinds: bytes) -> list[ByteReader]:
    return [ByteReader(body) for item in items for body in item.bodies(b"colr") if body[:4] in kinds]


def _with_alpha(image: Image.Image, planes: Planes, crop: tuple[int, int, int, int], is_premultiplied: bool) -> Image.Image:
    alpha = Image.fromarray(_cropped(planes, crop).samples[0])
    if alpha.size != image.size:
        alpha = alpha.resize(image.size, Image.Resampling.BILINEAR)
    return Image.merge(image.mode + ("a" if is_premultiplied else "A"), [*image.split(), alpha])
