"""EfficientNet-Lite (Google, 2020) as a Keras model, with the ImageNet weights of a torch state. No file is read here.

The Lite family is EfficientNet without squeeze-and-excitation and with ReLU6: github.com/tensorflow/tpu, efficientnet/lite.
"""

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
_BN_EPSILON = 1e-3
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
# Blocks of each stage. The first and the last stage are the same in the whole family; widths and kernels stand in the weights.
_REPEATS = {"efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1), "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1)}


def build_efficientnet_lite(name: str, tensors: Tensors, input_pixels: int) -> Any:
    """Return the Keras model: uint8 RGB [n, input_pixels, input_pixels, 3] to float32 features [n, 1280].

    Args:
        name: `efficientnet_lite0` or `efficientnet_lite2`.
        tensors: the state of the torch model, by torch's names.
        input_pixels: side of the square input.

    Raises:
        KeyError, ValueError: a tensor is missing or has another shape.
    """
    import keras

    layers = keras.layers
    image = keras.Input((input_pixels, input_pixels, 3), dtype="uint8", name="pixels")
    # (x - 127) / 128, exact in float32 in either order: every term is a multiple of 1/128.
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(image)
    x = _conv_bn(x, tensors, "_conv_stem", "_bn0", stride=2)
    stages = zip(_STRIDES, _REPEATS[name], strict=True)
    strides = chain.from_iterable((stride, *[1] * (repeats - 1)) for stride, repeats in stages)
    for index, stride in enumerate(strides):
        x = _mobile_block(x, tensors, f"_blocks.{index}", stride)
    x = _conv_bn(x, tensors, "_conv_head", "_bn1")
    return keras.Model(image, layers.GlobalAveragePooling2D(name="features")(x), name=name)


def imagenet_head(tensors: Tensors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (weight [1280, 1000], bias [1000]): `features @ weight + bias` are the logits of the ImageNet classes."""
    return np.ascontiguousarray(tensors["_fc.weight"].T), tensors["_fc.bias"]


def _mobile_block(x: Any, tensors: Tensors, name: str, stride: int) -> Any:
    import keras

    source = x
    if f"{name}._expand_conv.weight" in tensors:
        x = _conv_bn(x, tensors, f"{name}._expand_conv", f"{name}._bn0")
    kernel = tensors[f"{name}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
    depthwise = keras.layers.DepthwiseConv2D(kernel.shape[0], stride, padding="same", use_bias=False)
    x = depthwise(x)
    depthwise.set_weights([kernel])
    x = keras.layers.ReLU(6.0)(_batch_norm(x, tensors, f"{name}._bn1"))
    x = _conv_bn(x, tensors, f"{name}._project_conv", f"{name}._bn2", is_activated=False)
    return keras.layers.Add()([x, source]) if source.shape == x.shape else x


def _conv_bn(x: Any, tensors: Tensors, conv: str, bn: str, stride: int = 1, is_activated: bool = True) -> Any:
    import keras

    kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
    layer = keras.layers.Conv2D(kernel.shape[3], kernel.shape[0], stride, padding="same", use_bias=False)
    x = layer(x)
    layer.set_weights([kernel])
    x = _batch_norm(x, tensors, bn)
    return keras.layers.ReLU(6.0)(x) if is_activated else x


def _batch_norm(x: Any, tensors: Tensors, name: str) -> Any:
    import keras

    layer = keras.layers.BatchNormalization(epsilon=_BN_EPSILON)
    x = layer(x)
    layer.set_weights([tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])
    return x
