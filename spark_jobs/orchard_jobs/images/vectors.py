"""Squares to vectors: how many squares a backbone gets at once, and one vector for the views of an image."""

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.errors import JobError
from orchard_jobs.images.loaded_backbone import LoadedBackbone

# What lies between two layers of a batch of 8 is more than the cache of some CPU cores holds. A call costs ONNX Runtime little;
# a GPU and TensorFlow want more squares per call. `bench/batch_sizes.py` prints the figures.
_SQUARES_A_CALL, MOST_SQUARES_A_CALL = {"onnx": 2}, 8


def squares_a_call(backbone: LoadedBackbone) -> int:
    """Return how many squares a backbone is given at once. With `onnx` their number changes no bit of a vector."""
    return _SQUARES_A_CALL.get(backbone.engine, MOST_SQUARES_A_CALL)


def vectors_of(backbone: LoadedBackbone, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return an image's vector, float32 [n, dimension]: the mean of the vectors of its views, taken in float64.

    Args:
        backbone: the loaded backbone.
        squares: uint8 RGB [n, views, input_pixels, input_pixels, 3].

    Raises:
        JobError: the backbone gave vectors of another shape or type. What it raises is passed on.
    """
    images, views = squares.shape[:2]
    flat, most = squares.reshape(images * views, *squares.shape[2:]), squares_a_call(backbone)
    vectors = np.concatenate([backbone(flat[first : first + most]) for first in range(0, len(flat), most)])
    expected = (len(flat), backbone.dimension)
    if vectors.shape != expected or vectors.dtype != np.float32:
        raise JobError(f"the backbone gave {vectors.dtype} {vectors.shape}, expected float32 {expected}: export it again")
    means: NDArray[np.float32] = vectors.reshape(images, views, -1).mean(axis=1, dtype=np.float64).astype(np.float32)
    return means
