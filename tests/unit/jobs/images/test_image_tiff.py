"""Decoding TIFF: the tags say what the samples are, whatever their depth, order, packing, kind and colours."""

import io
import struct
import zlib
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.tiff_layout import WEBP
from orchard_jobs.images.formats.tiff_tags import read_tags
from PIL import Image, ImageDraw
from support.pictures import bad, flat, good, picture, resized, saved
from support.tiffs import DEFLATE, LZMA, LZW, NONE, PACKBITS, ZSTANDARD, Form, tiff, with_places

RGB = np.asarray(picture(70, 50, seed=5))
SHADES = RGB[..., 0]
PACKED = [NONE, LZW, DEFLATE, PACKBITS, LZMA, ZSTANDARD]
ORDERS = ["<", ">"]
Order = Literal["<", ">"]


def numbers(kind: str, shades: NDArray[np.uint8]) -> NDArray[np.number]:
    """Samples of a kind that show these shades."""
    if kind in ("f2", "f4", "f8"):
        return (shades / 255).astype(kind)
    if kind in ("i1", "i2", "i4"):
        shades = np.right_shift(shades, np.uint8(1))
    return shades.astype(kind) if kind.endswith("1") else shades.astype(kind) * 256 + 77


def assert_shows(content: bytes, shades: NDArray[np.uint8], off: int = 0) -> None:
    expected = resized(Image.fromarray(shades).convert("RGB")).astype(int)
    assert np.abs(good(content).squares[0].astype(int) - expected).max() <= off


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ORDERS)
def test_samples_of_every_kind_in_every_packing(order: Order, kind: str, compression: int) -> None:
    shown = np.right_shift(RGB, np.uint8(1)) if kind.startswith("i") else RGB
    for form in (Form(order, compression), Form(order, compression, rows=7), Form(order, compression, tile=(32, 16))):
        assert_shows(tiff(numbers(kind, RGB), form), shown)
        assert_shows(tiff(numbers(kind, SHADES), form), shown[..., 0])


@pytest.mark.parametrize("compression", [LZW, DEFLATE, LZMA, ZSTANDARD])
@pytest.mark.parametrize(("kind", "predictor"), [("u1", 2), ("u2", 2), ("u4", 2), ("f4", 2), ("f2", 3), ("f4", 3), ("f8", 3)])
@pytest.mark.parametrize("order", ORDERS)
def test_predicted_samples(order: Order, kind: str, predictor: int, compression: int) -> None:
    for form in (Form(order, compression, predictor, rows=9), Form(order, compression, predictor, tile=(16, 32))):
        assert_shows(tiff(numbers(kind, RGB), form), RGB)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_planes_apart(tile: tuple[int, int] | None, kind: str, order: Order) -> None:
    assert_shows(tiff(numbers(kind, RGB), Form(order, LZW, rows=8, tile=tile, is_separate=True)), RGB)


@pytest.mark.parametrize("compression", [NONE, LZW, PACKBITS])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 9, 10, 12, 14])
def test_samples_that_fill_no_bytes(bits: int, compression: int) -> None:
    values = np.arange(50 * 71).reshape(50, 71) % (1 << bits)
    shades = values >> (bits - 8) if bits > 8 else values * 255 // ((1 << bits) - 1)
    assert_shows(tiff(values.astype(np.uint16), Form(compression=compression, rows=11), bits), shades.astype(np.uint8))
    colours = np.stack([values, values[::-1], values[:, ::-1]], -1)
    shown = np.stack([shades, shades[::-1], shades[:, ::-1]], -1).astype(np.uint8)
    assert_shows(tiff(colours.astype(np.uint16), Form(compression=compression), bits), shown)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("order", ORDERS)
def test_white_is_zero_is_a_negative(order: Order, kind: str) -> None:
    assert_shows(tiff(numbers(kind, SHADES), Form(order, LZW, photometric=0)), 255 - SHADES)


@pytest.mark.parametrize("bits", [1, 4, 12])
def test_white_is_zero_of_few_bits(bits: int) -> None:
    assert flat(tiff(np.zeros((8, 8), np.uint16), Form(photometric=0), bits)) == [255] * 3


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(("scale", "order"), [(1, "<"), (256, ">"), (257, "<")])
def test_a_colour_map_of_8_or_16_bits(bits: int, scale: int, order: Order) -> None:
    colours = np.array([[200, 10, 20]] * (1 << bits))
    colours[0] = 1
    form = Form(order, LZW, photometric=3, tags={320: [int(one) * scale for one in colours.T.reshape(-1)]})
    assert flat(tiff(np.ones((9, 9), np.uint8), form, bits)) == [200, 10, 20]


def test_a_colour_map_cut_short_is_truncated() -> None:
    assert bad(tiff(np.ones((9, 9), np.uint8), Form(photometric=3, tags={320: [9] * 700}))).reason == Reason.TRUNCATED


def test_missing_photometric_interpretation_is_libtiffs() -> None:
    content = tiff(np.full((8, 8), 200, np.uint8))
    assert flat(content.replace(b"\x06\x01\x04\0\x01\0\0\0\x01", b"\x05\x01\x04\0\x01\0\0\0\x01")) == [200] * 3


@pytest.mark.parametrize(("extra", "shown"), [(0, [100] * 3), (1, [255] * 3), (2, [224] * 3)])
def test_extra_samples_are_what_their_tag_says(extra: int, shown: list[int]) -> None:
    gray = np.full((8, 8, 2), (100, 51), np.uint8)
    if extra == 1:
        gray[..., 0] = 51
    assert flat(tiff(gray, Form(tags={338: [extra]}))) == shown
    deep = gray.astype(np.uint16) * 256
    assert flat(tiff(deep, Form(">", LZW, tags={338: [extra]}))) == shown


def test_inks_and_their_extra_samples() -> None:
    inks = np.full((8, 8, 5), (51, 0, 102, 0, 9), np.uint8)
    assert flat(tiff(inks, Form(photometric=5))) == [204, 255, 153]
    assert bad(tiff(inks, Form(photometric=5, tags={332: [2]}))).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(("extra", "shown"), [(0, [204, 255, 153]), (1, [204, 255, 153]), (2, [245, 255, 235])])
def test_inks_with_transparency_lie_on_white(extra: int, shown: list[int]) -> None:
    inks = np.full((8, 8, 5), (51, 0, 102, 0, 51), np.uint8)
    for kind in (inks, inks.astype(np.uint16) * 256):
        assert flat(tiff(kind, Form(photometric=5, tags={338: [extra]}))) == shown


def test_lab_with_transparency_is_unsupported() -> None:
    lab = np.full((8, 8, 4), (136, 208, 195, 51), np.uint8)
    assert bad(tiff(lab, Form(photometric=8, tags={338: [2]}))).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("unit", [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_colours_that_pixels_share(unit: tuple[int, int]) -> None:
    across, down = unit
    units = np.full((-(-10 // down), -(-14 // across), across * down + 2), 120, np.uint8)
    units[..., -2:] = (90, 200)
    content = tiff(
        units.reshape(len(units), -1), Form(photometric=6, tags={256: [14], 257: [10], 277: [3], 278: [10], 530: list(unit)})
    )
    found = flat(content)
    assert (
        np.abs(np.array(found) - np.array(Image.new("YCbCr", (1, 1), (120, 90, 200)).convert("RGB").getpixel((0, 0)))).max() <= 1
    )


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([0.5] * 255 + [1.001], 128),
        ([0.5] * 255 + [900.0], 128),
        ([0.5] * 255 + [-0.2], 128),
        ([0.5] * 240 + [1.3] * 16, 128),
        ([128.0] * 255 + [255.4], 128),
        ([128.0] * 255 + [4000.0], 128),
    ],
)
def test_outliers_do_not_change_what_floats_mean(values: list[float], median: int) -> None:
    pixels = good(tiff(np.array(values, np.float32).reshape(16, 16))).squares[0]
    assert abs(int(np.median(pixels)) - median) <= 1


@pytest.mark.parametrize(("least", "greatest"), [(-0.5, 0.0), (-0.4, -0.1), (-0.5, 0.1), (-100, -1), (-1, 1), (-3, 9)])
def test_floats_below_black_are_stretched(least: float, greatest: float) -> None:
    shades = np.arange(256).reshape(16, 16)
    values = (least + (greatest - least) * shades**2 / 255**2).astype(np.float32)
    assert_shows(tiff(values), np.rint(shades**2 / 255).astype(np.uint8), off=4)


def test_floats_whose_white_is_not_told_are_unsupported() -> None:
    values = np.full((16, 16), 0.3, np.float32)
    values[:3] = 40
    assert "white" in bad(tiff(values)).message
    for greatest in (2, 10, 31):
        assert "white" in bad(tiff(np.linspace(0, greatest, 256, dtype=np.float32).reshape(16, 16))).message


@pytest.mark.parametrize(
    "values", [np.full((8, 8), 1000, np.float32), np.full((8, 8), -5, np.int16), np.full((8, 8), -3e9, np.float32)]
)
def test_one_value_outside_any_usual_range_is_unsupported(values: NDArray[np.number]) -> None:
    assert "black and white" in bad(tiff(values)).message
    assert bad(tiff(values, Form(tags={340: [9], 341: [9]}))).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("usual", "outlier"),
    [
        *((np.float32(0.5), outlier) for outlier in (-1, -50, 2, -9999, 1e30)),
        *((np.float32(128), outlier) for outlier in (-9999, 1e6)),
        *((np.int16(0x3000), outlier) for outlier in (-1, -300)),
        *((np.uint32(200), outlier) for outlier in (70_000, 2**32 - 1)),
        (np.int32(200), -1),
    ],
)
@pytest.mark.parametrize(("side", "count"), [(8, 1), (100, 11), (100, 60)])
def test_a_few_numbers_outside_never_decide_what_is_black(usual: np.number, outlier: float, side: int, count: int) -> None:
    values = np.full((side, side), usual)
    values.reshape(-1)[:count] = outlier
    assert "no tag gives" in bad(tiff(values)).message


def test_tags_tell_the_range_of_unusual_values() -> None:
    values = np.full((8, 8), 1000, np.float32)
    assert flat(tiff(values, Form(tags={341: [2000]}))) == [128] * 3
    assert flat(tiff(values, Form(tags={340: [800], 341: [1800]}))) == [51] * 3


@pytest.mark.parametrize("kind", ["u4", "i4", "u8", "i8", "i2", "f4"])
def test_the_tags_range_counts_before_the_usual_ones(kind: str) -> None:
    values = np.full((8, 8), 100, kind)
    assert flat(tiff(values, Form(tags={341: [1000]}))) == [26] * 3
    assert flat(tiff(values, Form(tags={340: [50], 341: [300]}))) == [51] * 3


def test_integers_have_an_older_pair_of_tags_for_their_range() -> None:
    values = np.full((8, 8), 100, np.uint32)
    assert flat(tiff(values, Form(tags={281: [1000]}))) == [26] * 3
    assert flat(tiff(values, Form(tags={280: [50], 281: [300]}))) == [51] * 3
    assert flat(tiff(values, Form(tags={281: [1000], 341: [500]}))) == [51] * 3


@pytest.mark.parametrize("bits", [10, 12, None])
def test_up_to_16_bits_may_have_a_range_of_their_own(bits: int | None) -> None:
    all_bits = bits or 16
    values = np.full((8, 8), 800, np.uint16)
    for high, low in ((341, 340), (281, 280)):
        assert flat(tiff(values, Form(tags={high: [1000]}), bits)) == [204] * 3
        assert flat(tiff(values, Form(tags={low: [700], high: [1000]}), bits)) == [85] * 3
        assert flat(tiff(values, Form(photometric=0, tags={high: [1000]}), bits)) == [51] * 3
        assert flat(tiff(values, Form(tags={low: [0], high: [(1 << all_bits) - 1]}), bits)) == [800 >> all_bits - 8] * 3
        assert bad(tiff(values, Form(tags={high: [700]}), bits)).reason == Reason.UNSUPPORTED
    colours = np.full((8, 8, 4), (200, 400, 1000, 1 << all_bits - 1), np.uint16)
    tagged = {341: [1000] * 4, 338: [2]}
    assert flat(tiff(colours, Form(tags=tagged), bits)) == [153, 178, 255]


@pytest.mark.parametrize("kind", ["u4", "i2", "f4"])
def test_tags_that_most_values_contradict_are_unsupported(kind: str) -> None:
    found = bad(tiff(np.full((8, 8), 1000, kind), Form(tags={341: [255]})))
    assert (found.reason, "most values lie outside" in found.message) == (Reason.UNSUPPORTED, True)


def test_a_float_types_greatest_number_tells_no_white() -> None:
    assert flat(tiff(np.full((8, 8), 0.2, np.float16), Form(tags={341: [65504]}))) == [51] * 3


@pytest.mark.parametrize(
    ("kind", "value", "shade"),
    [
        *[(kind, value, value) for kind in ("u4", "i4", "u8", "i8", "i2") for value in (0, 1, 150, 255)],
        *[(kind, value, value >> 8) for kind in ("u4", "i4", "u8", "i8") for value in (256, 0x3000, 0xFFFF)],
        *[("u4", value, value >> 24) for value in (0x10000, 0x30000000, 0xFFFFFFFF)],
        ("u8", 0x3000000000000000, 48),
        ("i2", 0x3000, 48),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_wide_integers_are_8_bits_or_16_bits_or_all_bits(order: Order, kind: str, value: int, shade: int) -> None:
    assert flat(tiff(np.full((8, 8), value, kind), Form(order, DEFLATE))) == [shade] * 3


def test_32_bit_integers_show_what_pillow_shows() -> None:
    shades = 50 + SHADES.astype(np.int32) * 100 // 255
    content = saved(Image.fromarray(shades), "TIFF")
    assert Image.open(io.BytesIO(content)).mode == "I"
    assert_shows(content, shades.astype(np.uint8))


@pytest.mark.parametrize(
    ("compression", "name"),
    [(6, "old-style JPEG"), (34712, "JPEG 2000"), (34887, "LERC"), (34661, "JBIG"), (50002, "JPEG XL"), (999, "unknown")],
)
def test_a_compression_that_is_not_read_is_named(compression: int, name: str) -> None:
    found = bad(tiff(SHADES, Form(compression=compression)))
    assert found.reason == Reason.UNSUPPORTED
    assert name in found.message


@pytest.mark.parametrize(
    "tags", [{262: [32803]}, {262: [4]}, {258: [8, 5, 8]}, {258: [24, 24, 24]}, {339: [5, 5, 5]}, {258: [17, 17, 17]}]
)
def test_samples_without_a_defined_colour_are_unsupported(tags: dict[int, list[int]]) -> None:
    assert bad(tiff(RGB, Form(tags=tags))).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("compression", PACKED)
def test_a_strip_that_ends_early_is_truncated(compression: int) -> None:
    content = tiff(RGB, Form(compression=compression, rows=9))
    assert bad(content[:-20]).reason == Reason.TRUNCATED
    short = tiff(RGB[:-9], Form(compression=compression, rows=9, tags={257: [50]}))
    assert bad(short).reason == Reason.TRUNCATED
    assert bad(tiff(RGB[:40], Form(compression=compression, tags={257: [50], 278: [50]}))).reason == Reason.TRUNCATED


@pytest.mark.parametrize("cut", [1, 4, 5])
def test_a_deflated_strip_without_its_end_is_truncated(cut: int) -> None:
    content, size = tiff(RGB, Form(compression=DEFLATE)), len(zlib.compress(RGB.tobytes()))

    def sized(other: int) -> bytes:
        return content.replace(struct.pack("<HHII", 279, 4, 1, size), struct.pack("<HHII", 279, 4, 1, other))

    assert bad(sized(size - cut)).reason == Reason.TRUNCATED
    assert_shows(sized(size + 5) + b"spare", RGB)


@pytest.mark.parametrize("compression", [NONE, DEFLATE, PACKBITS])
def test_bits_in_reverse_order(compression: int) -> None:
    reverse = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)
    content = tiff(RGB, Form(compression=compression, tags={266: [2]}))
    tags = read_tags(content)
    start, size = tags.integer(273, 0), tags.integer(279, 0)
    strip = reverse[np.frombuffer(content, np.uint8, size, start)].tobytes()
    assert_shows(content[:start] + strip + content[start + size :], RGB)


@pytest.mark.parametrize("compression", [LZW, DEFLATE, LZMA])
def test_a_damaged_strip_is_truncated(compression: int) -> None:
    content = bytearray(tiff(RGB, Form(compression=compression)))
    content[-400:-360] = bytes(40)
    assert bad(bytes(content)).reason == Reason.TRUNCATED


@pytest.mark.parametrize("tags", [{278: [2**32 - 1]}, {}])
def test_a_strip_may_say_that_it_has_more_rows(tags: dict[int, list[int]]) -> None:
    assert_shows(tiff(RGB, Form(tags=tags)), RGB)


@pytest.mark.parametrize("compression", ["jpeg", "group3", "group4", "tiff_ccitt"])
def test_packings_of_whole_pictures(compression: str) -> None:
    source = picture(64, 48) if compression == "jpeg" else picture(64, 48).convert("1")
    content = saved(source, "TIFF", compression=compression, **({"quality": 100} if compression == "jpeg" else {}))
    assert np.abs(good(content).squares[0].astype(int) - resized(source.convert("RGB"))).max() <= 4


@pytest.mark.parametrize("photometric", [2, 6])
def test_webp_in_a_tiff_has_the_colours_that_it_says(photometric: int) -> None:
    inner = saved(picture(64, 48), "WEBP", lossless=True)
    entries = {256: [64], 257: [48], 258: [8] * 3, 259: [WEBP], 262: [photometric], 277: [3], 278: [48]}
    np.testing.assert_array_equal(
        good(with_places(entries, inner, (273, 279), [0], [len(inner)])).squares[0], resized(picture(64, 48))
    )


def test_a_deflated_strip_of_more_than_its_bytes_is_truncated() -> None:
    content = tiff(RGB, Form(compression=DEFLATE, tags={257: [30], 278: [30]}))
    assert "holds more than its 6300 bytes" in bad(content).message


def page() -> Image.Image:
    """A page of text: black on white, with white margins."""
    image = Image.new("1", (640, 800), 1)
    draw = ImageDraw.Draw(image)
    for row in range(40, 700, 14):
        draw.text((40, row), f"line {row}: {row * 7919 % 10_000_019} of what somebody wrote down, and {row**3 % 9973} more")
    return image


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("rows", [800, 100])
def test_group_4_data_must_be_read_to_their_end(rows: int, fill_order: int) -> None:
    content = saved(page(), "TIFF", compression="group4", tiffinfo={278: rows, 266: fill_order})
    assert_shows(content, np.asarray(page().convert("L")))
    found = read_tags(content)
    start, size = found.integer(273, 0), found.integer(279, 0)
    for at in range(start + 40, start + size - 400, size // 12):
        for hole in (16, 200):
            assert bad(content[:at] + bytes(hole) + content[at + hole :]).reason == Reason.TRUNCATED
    shorter = content.replace(struct.pack("<HHII", 279, 4, 1, size), struct.pack("<HHII", 279, 4, 1, size // 2))
    assert rows == 100 or bad(shorter).reason == Reason.TRUNCATED


@pytest.mark.parametrize("shade", [0, 1])
def test_a_white_or_black_page_of_group_4_is_whole(shade: int) -> None:
    blank = Image.new("1", (64, 5000), shade)
    assert flat(saved(blank, "TIFF", compression="group4")) == [255 * shade] * 3


def test_a_jpeg_in_a_tiff_is_read_strictly() -> None:
    content = bytearray(saved(picture(64, 48), "TIFF", compression="jpeg"))
    content[len(content) // 2 :][: len(content) // 4] = b""
    middle = len(content) // 2
    content[middle : middle + 60] = b"\xff\xd9" * 30
    assert bad(bytes(content)).reason == Reason.TRUNCATED


def test_a_jpeg_larger_than_its_strip_is_not_expanded() -> None:
    inner = saved(picture(4000, 4000), "JPEG")
    content = tiff(RGB, Form(compression=7))
    found = read_tags(content).integers(273)[0]
    packed = content[:found] + inner
    at = packed.index(b"\x17\x01\x04\0\x01\0\0\0") + 8
    assert bad(packed[:at] + len(inner).to_bytes(4, "little") + packed[at + 4 :]).reason == Reason.TRUNCATED


def test_a_bigtiff_is_read() -> None:
    content = saved(picture(), "TIFF", big_tiff=True)
    assert content[2] == 43
    np.testing.assert_array_equal(good(content).squares[0], resized(picture()))


@pytest.mark.parametrize(
    ("tags", "words"), [({50706: [1]}, "camera raw (DNG)"), ({254: [1], 330: [8]}, "a smaller copy of another")]
)
def test_camera_raw_is_never_its_thumbnail(tags: dict[int, list[int]], words: str) -> None:
    found = bad(tiff(RGB, Form(tags=tags)))
    assert found.reason == Reason.UNSUPPORTED
    assert words in found.message


@pytest.mark.parametrize("big", [False, True])
def test_a_smaller_copy_before_its_picture_is_unsupported(big: bool) -> None:
    first, second = picture(30, 20), picture(60, 40)
    pages = saved(first, "TIFF", save_all=True, append_images=[second], tiffinfo={254: 1}, big_tiff=big)
    assert bad(pages).reason == Reason.UNSUPPORTED
    alone = saved(first, "TIFF", tiffinfo={254: 1}, big_tiff=big)
    np.testing.assert_array_equal(good(alone).squares[0], resized(first))
    full_first = saved(first, "TIFF", save_all=True, append_images=[second], big_tiff=big)
    np.testing.assert_array_equal(good(full_first).squares[0], resized(first))


@pytest.mark.parametrize(
    ("info", "is_read"),
    [
        ({532: (0.0, 255.0, 128.0, 255.0, 128.0, 255.0), 529: (0.299, 0.587, 0.114)}, True),
        ({532: (15.0, 235.0, 128.0, 240.0, 128.0, 240.0)}, False),
        ({529: (0.2126, 0.7152, 0.0722)}, False),
        ({529: (0.299, 0.587, 0.114, 0.0)}, False),
        ({532: (0.0, 255.0, 128.0, 255.0, 128.0, 255.0, 0.0, 255.0)}, False),
    ],
)
def test_ycbcr_of_other_colours_or_ranges_is_unsupported(info: dict[int, tuple[float, ...]], is_read: bool) -> None:
    colour = (120, 90, 200)
    content = saved(Image.new("YCbCr", (8, 8), colour), "TIFF", tiffinfo=info)
    if is_read:
        assert flat(content) == list(Image.new("YCbCr", (1, 1), colour).convert("RGB").tobytes())
    else:
        assert bad(content).reason == Reason.UNSUPPORTED


def test_icclab_counts_its_colours_from_128() -> None:
    lab = np.full((8, 8, 3), (136, 208, 195), np.uint8)
    plain, icc = (
        flat(tiff(lab ^ np.array([0, flip, flip], np.uint8), Form(photometric=kind))) for kind, flip in ((8, 0), (9, 128))
    )
    assert plain == icc
    assert max(icc) - min(icc) > 100
