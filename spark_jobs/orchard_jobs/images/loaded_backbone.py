"""Load a backbone: uint8 squares in, features out, preprocessing included.

A network is defined in Keras (`images.keras_backbones`). The `tensorflow` engine runs that definition. `onnx` and, on an NVIDIA
GPU, `cuda` run an export of it. `prepare_backbone` writes the export into the warehouse once, so that workers need neither
TensorFlow nor the weights.
"""

import hashlib
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.layout import BackbonePath, backbone_path
from orchard_jobs.contract.views import Views
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.images.color_histogram import color_histograms
from orchard_jobs.images.keras_backbones import build_keras, check_installed
from orchard_jobs.storage import Warehouse

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
        views: the parts of an image that it is to be given.
    """

    engine: str
    input_pixels: int
    dimension: int
    views: Views

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 features [n, dimension] of uint8 RGB pixels [n, input_pixels, input_pixels, 3]."""
        ...


class _RunningBackbone:
    def __init__(self, backbone: Backbone, run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> None:
        self.engine = backbone.engine
        self.input_pixels = backbone.input_pixels
        self.dimension = backbone.dimension
        self.views = backbone.views
        self._run = run

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run(pixels)


def prepare_backbone(backbone: Backbone, warehouse: Warehouse) -> None:
    """Make sure that workers can load the backbone: check its weights, or export it, once, for an engine that runs an export.

    Raises:
        ConfigurationError: a package or the weights are missing, or are other ones than the backbone names.
    """
    path = backbone_path(backbone.export_id)
    if backbone.is_exported:
        if warehouse.size(path) is None:
            exported = _BUNDLED / BackbonePath(backbone.export_id).name
            warehouse.create(path, exported.read_bytes() if exported.exists() else _export(backbone))
        digest_path = str(BackbonePath(backbone.export_id, "sha256"))
        if warehouse.size(digest_path) is None:  # also of an export by an earlier release
            warehouse.create(digest_path, warehouse.sha256(path).encode())
    elif backbone.engine == "tensorflow":
        build_keras(backbone)


def load_backbone(backbone: Backbone, warehouse: Warehouse) -> LoadedBackbone:
    """Return the backbone, ready to run in this process.

    Raises:
        ConfigurationError: it is another release's; its export is not in the warehouse or is another's; or (`tensorflow`) the
            weights cannot be had here, or (`cuda`) no GPU works.
    """
    backbone.check_release()
    if backbone.engine == "numpy":
        return _RunningBackbone(backbone, color_histograms)
    runner = _onnx_runner(backbone, warehouse) if backbone.is_exported else _tensorflow_runner(backbone)
    return _RunningBackbone(backbone, runner)


def _export(backbone: Backbone) -> bytes:
    """Return the ONNX file of a backbone: input `pixels`, batch of any size."""
    check_installed(backbone, "tf2onnx", "orchard-jobs[tensorflow]")
    model = build_keras(backbone)
    import tensorflow as tf
    import tf2onnx

    run = tf.function(lambda pixels: model(pixels, training=False))
    signature = [tf.TensorSpec([None, backbone.input_pixels, backbone.input_pixels, 3], tf.uint8, name="pixels")]
    exported, _ = tf2onnx.convert.from_function(run, input_signature=signature, opset=int(backbone.engine_options["opset"]))
    content: bytes = exported.SerializeToString()
    return content


def _onnx_runner(backbone: Backbone, warehouse: Warehouse) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    check_installed(backbone, "onnxruntime", f"orchard-jobs[{backbone.engine}]")
    import onnxruntime

    path = backbone_path(backbone.export_id)
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
    expected = warehouse.read_if_there(str(BackbonePath(backbone.export_id, "sha256")))
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and expected.decode().strip() != found:
        uri = warehouse.uri_of(backbone_path(backbone.export_id))
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
    model = build_keras(backbone)
    import tensorflow as tf

    side = backbone.input_pixels
    graph = tf.function(
        lambda pixels: model(pixels, training=False), input_signature=[tf.TensorSpec([None, side, side, 3], tf.uint8)]
    )

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = graph(tf.constant(pixels)).numpy()
        return features

    return run
