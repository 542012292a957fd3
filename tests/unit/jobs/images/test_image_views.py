"""Views: each is its own part of the picture, and an image's vector is the mean of those of its views."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.contract.views import WHOLE, View, Views, parse_views, side_of_whole, text_of
from orchard_jobs.embedding import Embedded, Embedder
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.images import guarded
from orchard_jobs.images.compute import Good, InputRules, Tally, compute
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.formats.jpeg import read_jpeg
from orchard_jobs.images.formats.picture import Limits
from orchard_jobs.images.loaded_backbone import LoadedBackbone, load_backbone, prepare_backbone
from orchard_jobs.images.vectors import squares_a_call, vectors_of
from orchard_jobs.storage import Warehouse
from PIL import Image
from support.pictures import LIMIT, picture, saved

FOUR = parse_views("centre:0.6,centre:0.7,centre:0.8,centre:0.9")
BOTH = parse_views("whole,centre:0.5")


def squares(content: bytes, views: Views, side: int = 32) -> NDArray[np.int64]:
    found = decode(content, LIMIT, side, views)
    assert isinstance(found, Decoded)
    assert found.squares.dtype == np.uint8
    assert found.squares.shape == (len(views), side, side, 3)
    return found.squares.astype(np.int64)


def framed(width: int, height: int, share: float) -> Image.Image:
    """A green picture, red within the centred square of a share of its short side."""
    image, half = Image.new("RGB", (width, height), (0, 200, 0)), share * min(width, height) / 2
    left, top = round(width / 2 - half), round(height / 2 - half)
    image.paste((200, 0, 0), (left, top, width - left, height - top))
    return image


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (320, 320), (1600, 200)])
def test_a_centred_view_is_the_centred_square(size: tuple[int, int]) -> None:
    content = saved(framed(*size, share=0.5), "PNG")
    inner, outer = squares(content, parse_views("centre:0.5,centre:1"))
    assert (inner[2:-2, 2:-2] == (200, 0, 0)).all()
    assert (outer[10:22, 10:22] == (200, 0, 0)).all()
    assert (outer[:6] == (0, 200, 0)).all()
    assert (outer[:, -6:] == (0, 200, 0)).all()


def test_a_view_is_what_a_crop_is() -> None:
    image = picture(400, 300)
    (square,) = squares(saved(image, "PNG"), parse_views("centre:0.8"))
    cropped = np.asarray(image.crop((80, 30, 320, 270)).resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=3)).astype(int)
    np.testing.assert_allclose(square[2:-2, 2:-2], cropped[2:-2, 2:-2], rtol=0, atol=1)


def test_the_whole_among_views_is_the_whole_alone() -> None:
    content = saved(picture(90, 60), "JPEG")
    np.testing.assert_array_equal(squares(content, BOTH)[0], squares(content, WHOLE)[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(301, 500), (721, 1001)])
def test_a_turned_picture_has_the_views_of_the_upright(orientation: int, size: tuple[int, int]) -> None:
    upright = picture(50, 30, seed=3).resize(size, Image.Resampling.BICUBIC)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = squares(saved(stored, "JPEG", quality=95, exif=exif), BOTH)
    assert np.abs(turned - squares(saved(upright, "PNG"), BOTH)).mean() < 3


@pytest.mark.parametrize(
    ("text", "reduction"), [("whole", 8), ("centre:1", 8), ("centre:0.6", 4), ("centre:0.3,whole", 2), ("centre:0.1", 1)]
)
def test_the_smallest_view_decides_the_scale(text: str, reduction: int) -> None:
    limits = Limits(LIMIT, square=side_of_whole(parse_views(text), 32))
    assert read_jpeg(saved(picture(1024, 800), "JPEG"), limits).reduction == reduction


def test_a_view_of_a_scaled_photo_is_like_that_of_the_whole() -> None:
    photo = picture(60, 44, seed=4).resize((1208, 904), Image.Resampling.BICUBIC)
    views = parse_views("whole,centre:0.35,centre:0.875")
    scaled, whole = squares(saved(photo, "JPEG", quality=95), views), squares(saved(photo, "PNG"), views)
    assert [float(np.abs(one - other).mean()) < 2 for one, other in zip(scaled, whole, strict=True)] == [True] * 3


def test_a_tiny_picture_has_views() -> None:
    assert (squares(saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), FOUR) == (9, 8, 7)).all()


def test_the_guarded_decoder_gives_the_same_views() -> None:
    content = saved(picture(90, 60), "JPEG")
    found = guarded.decode(content, LIMIT, 32, FOUR)
    assert isinstance(found, Decoded)
    np.testing.assert_array_equal(found.squares, squares(content, FOUR))


class Spread:
    """A backbone whose vector is the mean colour and the spread of a square, and which counts its calls."""

    engine, input_pixels, dimension = "onnx", 8, 4

    def __init__(self, views: Views) -> None:
        self.views, self.calls = views, list[int]()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls.append(len(pixels))
        return np.column_stack([pixels.mean((1, 2)), pixels.std((1, 2, 3))]).astype(np.float32)


def entry(number: int) -> Entry:
    return Entry(f"s3://landing/{number:05d}.png", "e", 1, "2026-01-01T00:00:00+00:00", None, "compute", "g")


@pytest.mark.parametrize("views", [WHOLE, BOTH, FOUR, FOUR[:3]])
def test_a_vector_is_the_mean_of_its_views_and_each_is_a_run(views: Views) -> None:
    contents = [saved(picture(40, 30, seed=number), "PNG") for number in range(7)]
    backbone, tally = Spread(views), Tally()
    source = [(entry(number), content) for number, content in enumerate([*contents, contents[0]])]
    outcomes = list(compute(source, backbone, InputRules(LIMIT), tally))
    for content, outcome in zip([*contents, contents[0]], outcomes, strict=True):
        assert isinstance(outcome, Good)
        by_view = Spread(views)(squares(content, views, 8).astype(np.uint8)).astype(np.float64)
        np.testing.assert_allclose(outcome.features, by_view.mean(axis=0), rtol=1e-6)
        assert outcome.features.dtype == np.float32
    assert tally.network_runs == sum(backbone.calls) == 7 * len(views)
    assert tally.images == 8
    assert max(backbone.calls) <= squares_a_call(backbone)


def test_one_view_changes_no_bit_of_a_vector(lite0_onnx: LoadedBackbone) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 1, 224, 224, 3), dtype=np.uint8)
    np.testing.assert_array_equal(vectors_of(lite0_onnx, pixels), lite0_onnx(pixels[:, 0]))


@pytest.fixture
def backbone(lite0_onnx: LoadedBackbone, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A backbone of several views, where one of the whole was prepared and nothing can be exported."""

    def refuse(backbone: Backbone) -> bytes:
        raise AssertionError("exported again")

    monkeypatch.setattr("orchard_jobs.images.loaded_backbone._export", refuse)
    return backbone_named("efficientnet_lite0", views=FOUR)


def test_views_need_no_export_of_their_own(backbone: Backbone, warehouse: Warehouse) -> None:
    prepare_backbone(backbone, warehouse)
    assert load_backbone(backbone, warehouse).views == FOUR


def test_embedding_averages_as_a_job_does(backbone: Backbone, warehouse: Warehouse) -> None:
    content = saved(picture(300, 200), "JPEG")
    embedded = Embedder.load(warehouse, backbone, None, LIMIT).embed(content)
    (good,) = compute([(entry(0), content)], load_backbone(backbone, warehouse), InputRules(LIMIT), Tally())
    (whole,) = compute(
        [(entry(0), content)], load_backbone(backbone_named("efficientnet_lite0"), warehouse), InputRules(LIMIT), Tally()
    )
    assert isinstance(embedded, Embedded)
    assert isinstance(good, Good)
    assert isinstance(whole, Good)
    np.testing.assert_array_equal(embedded.features, good.features)
    assert np.abs(embedded.features - whole.features).max() > 0.01


def test_views_are_in_the_identity_and_the_whole_is_as_before() -> None:
    whole, four = backbone_named("efficientnet_lite0"), backbone_named("efficientnet_lite0", views=FOUR)
    assert backbone_named("efficientnet_lite0", views=parse_views("whole")) == whole
    assert whole.resize == "pillow bicubic, whole image, no crop"
    assert four.resize == "pillow bicubic, mean vector of centre:0.6,centre:0.7,centre:0.8,centre:0.9"
    assert asdict(four).keys() == asdict(whole).keys()
    assert four.id == "efficientnet_lite0-7353c5860425"
    assert Backbone(**json.loads(json.dumps(asdict(four)))).views == FOUR
    assert (whole.export_id, four.export_id) == (whole.id, whole.id)
    assert whole.views == WHOLE


@pytest.mark.parametrize("resize", ["nearest", "pillow bicubic, mean vector of corner", "pillow bicubic, mean vector of whole"])
def test_a_resize_of_another_release_is_refused(resize: str) -> None:
    other = replace(backbone_named("efficientnet_lite0"), resize=resize)
    with pytest.raises(ConfigurationError, match=rf"{other.id} is of another release: '{resize}'.*start a new run"):
        other.check_release()


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("whole", (View(),)),
        ("centre:0.875", (View(0.875),)),
        ("centre:1", (View(1.0),)),
        (" centre:0.70 , whole,centre:0.6", (View(), View(0.6), View(0.7))),
    ],
)
def test_views_have_one_text(text: str, views: Views) -> None:
    assert parse_views(text) == views
    assert parse_views(text_of(views)) == views


@pytest.mark.parametrize(
    "text",
    ["", "centre", "centre:0", "centre:0.05", "centre:1.5", "centre:.8", "centre:0.33333", "centre:nan", "left:0.5", "whole,"],
)
def test_what_is_no_view_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no view: give `whole`, `centre:0\.875`"):
        parse_views(text)


@pytest.mark.parametrize("text", ["whole,whole", "centre:0.6,centre:0.60"])
def test_a_view_counts_once(text: str) -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_views(text)


def test_a_view_lies_within_what_a_picture_fills() -> None:
    assert View(0.5).within((1.0, 0.0, 101.0, 60.0)) == (36.0, 15.0, 66.0, 45.0)
    assert View().within((1.0, 0.0, 101.0, 60.0)) == (1.0, 0.0, 101.0, 60.0)
