"""Backbones: one definition, two engines, the weights' identity."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.efficientnet_lite import imagenet_head
from orchard_jobs.images.keras_backbones import lite_tensors
from orchard_jobs.images.loaded_backbone import LoadedBackbone, load_backbone, prepare_backbone
from orchard_jobs.storage import Warehouse
from support.golden_features import ENGINES, GOLDEN, drawn_pixels

# TensorFlow, Keras and tf2onnx warn of what is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
LITE0 = backbone_named("efficientnet_lite0", "onnx")


LITE2 = backbone_named("efficientnet_lite2", "onnx")
of_each = pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if engine == "tensorflow"])


def of(request: pytest.FixtureRequest, name: str, engine: str) -> LoadedBackbone:
    """A backbone of a name on an engine, loaded once a session."""
    loaded: LoadedBackbone = request.getfixturevalue(f"{name.removeprefix('efficientnet_')}_{engine}")
    assert (loaded.engine, loaded.dimension) == (engine, 1280)
    assert loaded.input_pixels == {"efficientnet_lite0": 224, "efficientnet_lite2": 260}[name]
    return loaded


def close_to(expected: NDArray[Any]) -> float:
    return 1e-4 * max(1.0, float(np.abs(expected).max()))


@of_each
@pytest.mark.parametrize("engine", ["onnx", "tensorflow"])
def test_features_are_the_golden_ones(request: pytest.FixtureRequest, name: str, engine: str) -> None:
    loaded = of(request, name, engine)
    golden = json.loads(GOLDEN[name].read_text())
    pictures = drawn_pixels(loaded.input_pixels)
    assert sorted(golden) == sorted(pictures)
    features = loaded(np.stack(list(pictures.values())))
    assert features.dtype == np.float32
    for picture, vector in zip(pictures, features, strict=True):
        tolerance = 1e-4 * max(1.0, golden[picture]["largest"])
        for position, value in golden[picture]["at"].items():
            assert vector[int(position)] == pytest.approx(value, abs=tolerance), (picture, position)
        assert vector.astype(np.float64).sum() == pytest.approx(golden[picture]["sum"], abs=50 * tolerance)


@of_each
def test_golden_pictures_differ_in_their_features(name: str) -> None:
    golden = json.loads(GOLDEN[name].read_text())
    sums = [entry["sum"] for entry in golden.values()]
    assert len({round(value) for value in sums}) == len(sums)
    assert all(entry["largest"] > 0.5 for entry in golden.values())


@of_each
def test_engines_agree(request: pytest.FixtureRequest, name: str) -> None:
    onnx, tensorflow = of(request, name, "onnx"), of(request, name, "tensorflow")
    shape = (5, onnx.input_pixels, onnx.input_pixels, 3)
    pixels = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    reference = tensorflow(pixels)
    assert reference.shape == (5, 1280)
    np.testing.assert_allclose(onnx(pixels), reference, rtol=0, atol=close_to(reference))


@pytest.fixture
def cuda(warehouse: Warehouse, lite0_onnx: LoadedBackbone) -> Backbone:
    """A backbone of engine `cuda`, whose export is that of `onnx`, in the warehouse."""
    backbone = backbone_named("efficientnet_lite0", "cuda")
    assert backbone.id != LITE0.id
    if warehouse.size(backbone_path(backbone.id)) is None:
        warehouse.create(backbone_path(backbone.id), warehouse.read(backbone_path(LITE0.id)))
    return backbone


def test_without_a_gpu_the_cpu_does_not_stand_in_for_it(warehouse: Warehouse, cuda: Backbone) -> None:
    with pytest.raises(ConfigurationError, match="engine cuda: onnxruntime .* started on .* without a GPU"):
        load_backbone(cuda, warehouse)


def test_a_gpu_is_asked_for_full_precision(
    warehouse: Warehouse, cuda: Backbone, lite0_onnx: LoadedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a session that claims a GPU, and runs on the CPU."""
    import onnxruntime

    asked = list[Any]()
    real = onnxruntime.InferenceSession

    class Claiming:
        def __init__(self, content: bytes, options: Any, providers: Any) -> None:
            asked.extend(providers)
            self.session = real(content, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def __getattr__(self, name: str) -> Any:
            return getattr(self.session, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Claiming)
    backbone = load_backbone(cuda, warehouse)
    ((name, options),) = asked
    assert (name, options["use_tf32"], backbone.engine) == ("CUDAExecutionProvider", "0", "cuda")
    pixels = np.stack(list(drawn_pixels().values()))
    np.testing.assert_array_equal(backbone(pixels), lite0_onnx(pixels))


def test_a_vector_does_not_depend_on_its_batch(lite0_onnx: LoadedBackbone) -> None:
    pixels = np.stack(list(drawn_pixels().values()) * 8)
    together = lite0_onnx(pixels)
    for size in (1, 2, 5, 8):
        batches = [lite0_onnx(pixels[first : first + size]) for first in range(0, len(pixels), size)]
        np.testing.assert_array_equal(np.concatenate(batches), together)


def test_a_red_disc_and_noise_are_classes_apart(lite0_onnx: LoadedBackbone) -> None:
    weight, bias = imagenet_head(lite_tensors(LITE0))
    classes = np.argmax(lite0_onnx(np.stack(list(drawn_pixels().values()))) @ weight + bias, axis=1)
    assert len(set(classes.tolist())) == 4


@of_each
@pytest.mark.parametrize(("label", "imagenet_class"), [("Strawberry", 949), ("Lemon", 951), ("Orange", 950)])
def test_real_fruit_is_recognised(
    request: pytest.FixtureRequest, shared_data: Path, name: str, label: str, imagenet_class: int
) -> None:
    loaded = of(request, name, "onnx")
    files = sorted((shared_data / "fruits360").glob(f"*/{label}/*"))[:6]
    weight, bias = imagenet_head(lite_tensors(backbone_named(name)))
    squares = []
    for file in files:
        found = decode(file.read_bytes(), 50_000_000, loaded.input_pixels)
        assert isinstance(found, Decoded)
        squares.append(found.squares[0])
    classes = np.argmax(loaded(np.stack(squares)) @ weight + bias, axis=1)
    assert np.mean(classes == imagenet_class) >= 0.5, classes


def test_an_export_is_made_once(lite0_onnx: LoadedBackbone, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(backbone: Backbone) -> bytes:
        raise AssertionError("exported again")

    monkeypatch.setattr("orchard_jobs.images.loaded_backbone._export", refuse)
    prepare_backbone(LITE0, warehouse)


def test_loading_without_an_export_says_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"networks/efficientnet_lite0-.*orchard-jobs prepare"):
        load_backbone(LITE0, Warehouse.at(str(tmp_path)))


@pytest.mark.parametrize("other", [{"decoder": "1: as once"}, {"resize": "nearest"}])
def test_work_of_a_release_with_other_pixels_is_refused(lite0_onnx: LoadedBackbone, warehouse: Warehouse, other: Any) -> None:
    old = replace(LITE0, **other)
    with pytest.raises(ConfigurationError, match=f"{old.id} is of another release: .*start a new run of the batch"):
        load_backbone(old, warehouse)


def test_a_broken_export_is_refused(tmp_path: Path) -> None:
    place = Warehouse.at(str(tmp_path))
    place.create(backbone_path(LITE0.id), b"no backbone")
    with pytest.raises(ConfigurationError, match="onnxruntime cannot load"):
        load_backbone(LITE0, place)


def test_an_export_of_another_dimension_is_refused(lite0_onnx: LoadedBackbone, warehouse: Warehouse, tmp_path: Path) -> None:
    other = replace(LITE0, dimension=7)
    place = Warehouse.at(str(tmp_path))
    place.create(backbone_path(other.id), warehouse.read(backbone_path(LITE0.id)))
    with pytest.raises(ConfigurationError, match="gives 1280 features"):
        load_backbone(other, place)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for engine in ("onnx", "tensorflow"):
        with pytest.raises(ConfigurationError, match=r"needs the package .* install orchard-jobs\["):
            prepare_backbone(backbone_named("efficientnet_lite0", engine), Warehouse.at(str(tmp_path)))


def test_other_weights_than_named_are_refused(tmp_path: Path) -> None:
    for backbone, found in ((LITE0, "5793442"), (LITE2, "9656183")):
        wrong = replace(backbone, weights="sha256:" + "0" * 64)
        with pytest.raises(ConfigurationError, match=rf"have sha256 {found}.*names 0000"):
            prepare_backbone(wrong, Warehouse.at(str(tmp_path)))


def test_weights_that_keras_cannot_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def unreachable(*args: object, **named: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(ConfigurationError, match=r"no route to host: .*ORCHARD_WEIGHTS_FILE"):
        prepare_backbone(backbone_named("resnet50"), Warehouse.at(str(tmp_path)))


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A Keras notop file of seeded weights, and its SHA-256."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        keras.utils.set_random_seed(3)
        model = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg", input_shape=(224, 224, 3))
        path = tmp_path_factory.mktemp("weights") / "resnet50_notop.h5"
        model.save_weights(path.with_suffix(".weights.h5"))
        _save_as_keras_applications_do(model, path)
    yield path, hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()


def _save_as_keras_applications_do(model: Any, path: Path) -> None:
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    path.with_suffix(".weights.h5").unlink()
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_resnet50_from_a_file_on_both_engines(resnet50_file: tuple[Path, str], warehouse: Warehouse) -> None:
    import keras

    path, sha256 = resnet50_file
    backbone = backbone_named("resnet50", "onnx", str(path), sha256)
    prepare_backbone(backbone, warehouse)
    onnx = load_backbone(backbone, warehouse)
    reference = load_backbone(backbone_named("resnet50", "tensorflow", str(path), sha256), warehouse)
    pixels = np.random.default_rng(5).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    expected = reference(pixels)
    assert expected.shape == (2, 2048)
    np.testing.assert_allclose(onnx(pixels), expected, rtol=0, atol=close_to(expected))

    plain = keras.applications.ResNet50(include_top=False, weights=str(path), pooling="avg", input_shape=(224, 224, 3))
    caffe = keras.applications.resnet50.preprocess_input(pixels.astype(np.float32))
    by_keras = plain(caffe, training=False).numpy()
    np.testing.assert_allclose(expected, by_keras, rtol=0, atol=close_to(by_keras))
    assert np.abs(plain(pixels.astype(np.float32), training=False).numpy() - by_keras).max() > 10 * close_to(by_keras)


def test_resnet50_refuses_another_file(resnet50_file: tuple[Path, str], tmp_path: Path) -> None:
    path, sha256 = resnet50_file
    place = Warehouse.at(str(tmp_path))
    with pytest.raises(ConfigurationError, match=f"have sha256 {sha256}"):
        prepare_backbone(backbone_named("resnet50", "onnx", str(path), "1" * 64), place)
    with pytest.raises(ConfigurationError, match=r"cannot read the weights.*none\.h5.*ORCHARD_WEIGHTS_FILE"):
        prepare_backbone(backbone_named("resnet50", "onnx", str(tmp_path / "none.h5"), sha256), place)
    text = tmp_path / "text.h5"
    text.write_text("not a file of weights")
    with pytest.raises(ConfigurationError, match="do not fit it"):
        prepare_backbone(backbone_named("resnet50", "onnx", str(text), hashlib.sha256(text.read_bytes()).hexdigest()), place)
    assert list(place.list("_work")) == []


def test_a_changed_export_is_refused(lite0_onnx: LoadedBackbone, warehouse: Warehouse, tmp_path: Path) -> None:
    place, path = Warehouse.at(str(tmp_path)), backbone_path(LITE0.id)
    content = warehouse.read(path)
    place.create(path, content)
    prepare_backbone(LITE0, place)  # writes down the SHA-256 of an export that an earlier release made
    load_backbone(LITE0, place)
    place.rewrite(path, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ConfigurationError, match=r"its \.sha256 file says .*remove both files"):
        load_backbone(LITE0, place)
