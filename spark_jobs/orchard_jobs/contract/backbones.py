"""Backbones by name: the CNN, the identity of its weights, its preprocessing, and the digest that versions them.

Only the identity lives here, so that the Airflow side can plan without a library that runs a backbone;
`images.loaded_backbone` loads one.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.views import WHOLE, Views, parse_views, text_of
from orchard_jobs.errors import ConfigurationError

_OF_NETWORKS = ("onnx", "cuda", "tensorflow")
ENGINES = (*_OF_NETWORKS, "numpy")

# What this release makes of a file's bytes. Other pixels mean another text, and so another backbone.
DECODER = "3: strict, first frame, EXIF orientation applied, over white, profile to sRGB"
RESIZE = "pillow bicubic, whole image, no crop"
_RESIZE_OF_VIEWS = "pillow bicubic, mean vector of "


@dataclass(frozen=True)
class Backbone:
    """A CNN, or another function, that turns one square RGB image into `dimension` features.

    Attributes:
        name: one of BACKBONES.
        weights: what the weights are, `sha256:<hex>` or `md5:<hex>` of their file.
        dimension: length of a feature vector.
        preprocessing: how uint8 RGB becomes its input.
        engine: `onnx` (CPU), `cuda` (the same export on an NVIDIA GPU) or `tensorflow` (reference); `numpy` for no network.
        resize: which parts of a picture fill the square, and how; `views` reads it.
        weights_file: where a file with these weights lies; null takes the package's or Keras's own. Not in the digest.
        engine_options: not to be changed after the digest was asked for.
    """

    name: str
    weights: str
    dimension: int
    preprocessing: str
    engine: str
    weights_file: str | None = None
    input_pixels: int = 224
    decoder: str = DECODER
    resize: str = RESIZE
    engine_options: dict[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides a vector, library versions and the CPU apart."""
        identity = asdict(self)
        del identity["weights_file"]
        return digest_of(identity)

    def check_release(self) -> None:
        """Refuse work of a release whose decoder makes other pixels: its rows would bear this backbone's id.

        Raises:
            ConfigurationError: the decoder or the resize is not this release's.
        """
        if self.decoder != DECODER:
            raise self._of_another_release(self.decoder, DECODER)
        if self.resize != _resize_of(self.views):
            raise self._of_another_release(self.resize, _resize_of(self.views))

    @cached_property
    def views(self) -> Views:
        """The parts of a picture that each go through the backbone once.

        Raises:
            ConfigurationError: the resize is not this release's.
        """
        if self.resize == RESIZE:
            return WHOLE
        try:
            return parse_views(self.resize.removeprefix(_RESIZE_OF_VIEWS))
        except ValueError as error:
            raise self._of_another_release(self.resize, RESIZE) from error

    def _of_another_release(self, asked: str, here: str) -> ConfigurationError:
        told = f"backbone {self.id} is of another release: {asked!r}; this one has {here!r}"
        return ConfigurationError(f"{told}: start a new run of the batch")

    @cached_property
    def export_id(self) -> str:
        """The name of its export's file: its id with the view `whole`, for an export holds no resize."""
        return replace(self, resize=RESIZE).id

    @property
    def is_exported(self) -> bool:
        """Whether its engine runs an export, which lies in the warehouse."""
        return self.engine in ("onnx", "cuda")

    @property
    def id(self) -> str:
        """The name that tables, folders and events use: `<name>-<first 12 digits of the digest>`."""
        return f"{self.name}-{self.digest[:12]}"


@dataclass(frozen=True)
class _Known:
    weights: str
    dimension: int
    preprocessing: str
    input_pixels: int = 224
    engines: tuple[str, ...] = _OF_NETWORKS


_LITE = "rgb, (x - 127) / 128"
_NAMED = {
    "efficientnet_lite0": _Known("sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 1280, _LITE),
    "efficientnet_lite2": _Known("sha256:9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 1280, _LITE, 260),
    "resnet50": _Known("md5:4d473c1dd8becc155b73f8504c6f6626", 2048, "bgr, minus (103.939, 116.779, 123.68), average pooling"),
    "color_histogram": _Known("none", 256, "pillow hsv, value equalised, 16 x 4 x 4 cells, shares of pixels", engines=("numpy",)),
}
BACKBONES = tuple(_NAMED)


def backbone_named(
    name: str,
    engine: str = "onnx",
    weights_file: str | None = None,
    weights_sha256: str | None = None,
    views: Views = WHOLE,
) -> Backbone:
    """Return the backbone of a name.

    Args:
        name: one of BACKBONES.
        engine: one of ENGINES.
        weights_file: a Keras `.h5` file for `resnet50`; None lets Keras fetch the ImageNet weights.
        weights_sha256: the SHA-256 of `weights_file`; the two come together.
        views: the parts of a picture whose vectors are averaged.

    Raises:
        ConfigurationError: an unknown name or engine, or a weights file that does not go with them.
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"unknown engine {engine!r}: set ORCHARD_ENGINE to one of {', '.join(ENGINES)}")
    if (weights_file is None) != (weights_sha256 is None):
        raise ConfigurationError("ORCHARD_WEIGHTS_FILE and ORCHARD_WEIGHTS_SHA256 come together: set both or neither")
    options = {"opset": "17", "graph_optimization": "all"} if engine in ("onnx", "cuda") else {}
    if engine == "cuda":
        # Its 10 bits of fraction would put a feature beyond the engines' tolerance.
        options["tf32"] = "off"
    if name not in _NAMED:
        raise ConfigurationError(f"unknown backbone {name!r}: set ORCHARD_BACKBONE to one of {', '.join(BACKBONES)}")
    known = _NAMED[name]
    if engine not in known.engines:
        wanted = " or ".join(known.engines)
        raise ConfigurationError(f"ORCHARD_BACKBONE={name} does not run on ORCHARD_ENGINE={engine}: set the engine to {wanted}")
    if weights_file is not None and name != "resnet50":
        raise ConfigurationError(f"{name} takes its weights from its package: unset ORCHARD_WEIGHTS_FILE, or choose resnet50")
    return Backbone(
        name,
        f"sha256:{weights_sha256}" if weights_sha256 else known.weights,
        known.dimension,
        known.preprocessing,
        engine,
        weights_file,
        input_pixels=known.input_pixels,
        resize=_resize_of(views),
        engine_options=options,
    )


def _resize_of(views: Views) -> str:
    return RESIZE if views == WHOLE else _RESIZE_OF_VIEWS + text_of(views)
