"""Read the tensors of a legacy torch file without torch. Knows nothing of any backbone.

A legacy file is five pickles (magic number, version, system, state, storage keys), then each storage as its element count
and its bytes. Unpickling runs what the file names, so the unpickler here admits tensors and nothing else.
"""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Tensor:
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


class _TensorsOnly(pickle.Unpickler):
    """Admits the three kinds of names that a state of tensors needs."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _device, _elements, view = identity
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"the file holds {kind!r} where a whole storage belongs")
        self.storages[key] = dtype
        return _Storage(key, dtype)


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage.key, offset, tuple(shape), tuple(strides))


def read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the named tensors of a legacy torch file, each contiguous, in its own shape and type (float32 or int64).

    Raises:
        ValueError: the bytes are no such file, are cut short, or name anything but tensors.
    """
    file = io.BytesIO(content)
    try:
        if _load(file)[0] != _MAGIC:
            raise ValueError("not a legacy torch file: its magic number is another one")
        _version, _system = _load(file)[0], _load(file)[0]
        state, types = _load(file)
        keys = _load(file)[0]
        storages = {key: _read_storage(file, types[key]) for key in keys}
        return {name: _view(storages, tensor) for name, tensor in state.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"not a legacy torch file of tensors: {error}") from error


def _load(file: io.BytesIO) -> tuple[Any, dict[str, np.dtype[Any]]]:
    unpickler = _TensorsOnly(file)
    return unpickler.load(), unpickler.storages


def _read_storage(file: io.BytesIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    elements = int.from_bytes(file.read(8), "little")
    content = file.read(elements * dtype.itemsize)
    if len(content) != elements * dtype.itemsize:
        raise ValueError(f"the file is cut short: a storage of {elements} elements has {len(content)} bytes")
    return np.frombuffer(content, dtype)


def _view(storages: dict[str, NDArray[Any]], tensor: _Tensor) -> NDArray[Any]:
    storage = storages[tensor.storage]
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    # as_strided reads whatever lies there: the bounds are checked here, since a file may say anything.
    if tensor.offset < 0 or any(step < 0 for step in tensor.strides) or min(tensor.shape, default=1) < 1 or last >= storage.size:
        raise ValueError(f"a tensor of shape {tensor.shape} lies outside its storage of {storage.size} elements")
    steps = tuple(step * storage.itemsize for step in tensor.strides)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, steps))
