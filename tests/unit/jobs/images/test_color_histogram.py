"""The colour histogram: shares of pixels, blind to place and to light, behind the protocol of every backbone."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.contract.views import parse_views
from orchard_jobs.images.color_histogram import DIMENSION, color_histograms
from orchard_jobs.images.compute import Good, InputRules, Tally, compute
from orchard_jobs.images.loaded_backbone import load_backbone, prepare_backbone
from orchard_jobs.storage import Warehouse
from PIL import Image
from support.golden_features import GOLDEN, drawn_pixels
from support.pictures import LIMIT, picture, saved

HISTOGRAM = backbone_named("color_histogram", "numpy")


def square(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))[np.newaxis]


def test_histograms_are_the_golden_ones(tmp_path: Path) -> None:
    golden, pictures = json.loads(GOLDEN["color_histogram"].read_text()), drawn_pixels()
    loaded = load_backbone(HISTOGRAM, Warehouse.at(str(tmp_path)))
    for name, vector in zip(pictures, loaded(np.stack(list(pictures.values()))), strict=True):
        assert {str(place): float(vector[int(place)]) for place in golden[name]["at"]} == golden[name]["at"]
        assert vector.astype(np.float64).sum() == pytest.approx(golden[name]["sum"], abs=1e-6)
    assert len({json.dumps(entry) for entry in golden.values()}) == len(pictures)


def test_a_row_is_shares_of_pixels() -> None:
    found = color_histograms(np.concatenate([square(picture(64, 64, seed)) for seed in range(3)]))
    assert found.shape == (3, DIMENSION)
    assert found.dtype == np.float32
    assert HISTOGRAM.dimension == DIMENSION
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert len({row.tobytes() for row in found}) == 3


def test_one_colour_is_one_cell() -> None:
    found = color_histograms(
        np.concatenate([square(Image.new("RGB", (9, 9), name)) for name in ("red", "lime", "gray", "black")])
    )
    assert (found.max(axis=1) == 1).all()
    assert len(set(found.argmax(axis=1)[:3])) == 3


def test_place_does_not_count() -> None:
    pixels = square(picture(64, 64))
    np.testing.assert_array_equal(color_histograms(pixels[:, ::-1].copy()), color_histograms(pixels))


def test_light_does_not_count() -> None:
    """Half of the light halves each value; hue, saturation and the order of the values stay, but for rounding."""
    even = square(picture(64, 64)) // 2 * 2
    dark = color_histograms(even // 2)
    assert np.abs(dark - color_histograms(even)).sum() < 0.1
    assert np.abs(dark - color_histograms(255 - even)).sum() > 0.5


@pytest.mark.parametrize("views", ["whole", "centre:0.6,centre:0.8"])
def test_a_job_takes_it_as_any_backbone(views: str, tmp_path: Path) -> None:
    warehouse, backbone = Warehouse.at(str(tmp_path)), backbone_named("color_histogram", "numpy", views=parse_views(views))
    prepare_backbone(backbone, warehouse)
    assert list(warehouse.list("_work")) == []
    entry = Entry("s3://landing/a.png", "e", 1, "2026-01-01T00:00:00+00:00", None, "compute", "g")
    (good,) = compute([(entry, saved(picture(), "PNG"))], load_backbone(backbone, warehouse), InputRules(LIMIT), Tally())
    assert isinstance(good, Good)
    assert good.features.shape == (DIMENSION,)
    assert good.features.sum() == pytest.approx(1)


def test_it_has_no_weights_and_no_export() -> None:
    assert not HISTOGRAM.is_exported
    assert Backbone(**vars(backbone_named("color_histogram", "numpy"))) == HISTOGRAM
