"""Legacy torch files: tensors by their strides, and nothing but tensors."""

import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from orchard_jobs.images.torch_weights import read_tensors

MAGIC = 0x1950A86A20F9469CFC6C


class Named:
    """Pickles as a call of, or a reference to, any name."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class FilePickler(pickle._Pickler):  # the Python one: torch's names must be written without torch
    write: Any

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(pickle.GLOBAL + obj.name.replace(" ", "\n").encode() + b"\n")
            if obj.arguments:
                self.save(obj.arguments)
                self.write(pickle.REDUCE)
        elif isinstance(obj, Storage):
            self.save(("storage", Named(obj.kind), obj.key, "cpu", obj.elements, None))
            self.write(pickle.BINPERSID)
        else:
            vars(pickle._Pickler)["save"](self, obj, save_persistent_id)


class Storage:
    def __init__(self, kind: str, key: str, elements: int) -> None:
        self.kind, self.key, self.elements = kind, key, elements


def written(state: Any, storages: dict[str, np.ndarray[Any, Any]], magic: int = MAGIC) -> bytes:
    import io

    file = io.BytesIO()
    for part in (magic, 1001, {"little_endian": True}, state, list(storages)):
        FilePickler(file, 2).dump(part)
    for values in storages.values():
        file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return file.getvalue()


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], elements: int = 6) -> Named:
    storage = Storage("torch FloatStorage", "one", elements)
    return Named("torch._utils _rebuild_tensor_v2", storage, offset, shape, strides, False, OrderedDict())


SIX = {"one": np.arange(6, dtype="<f4")}


def test_a_tensor_is_read_by_its_strides() -> None:
    content = written(
        {"rows": tensor(0, (2, 3), (3, 1)), "columns": tensor(0, (2, 3), (1, 2)), "tail": tensor(4, (2,), (1,))}, SIX
    )
    found = read_tensors(content)
    assert found["rows"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["columns"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found["tail"].tolist() == [4, 5]
    assert all(values.flags.c_contiguous and values.dtype == np.float32 for values in found.values())


def test_a_call_of_anything_else_is_not_made(tmp_path: Any) -> None:
    target = tmp_path / "made"
    for name in ("os mkdir", "posix mkdir", "builtins eval", "torch load", "torch._utils _rebuild_parameter"):
        with pytest.raises(ValueError, match=name.replace(" ", r"\.") + ", which is not a tensor"):
            read_tensors(written({"x": Named(name, str(target))}, {}))
    assert not os.path.exists(target)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (2, 3), (3, 2)), (1, (6,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (10**9,), (1,)), (0, (0, 3), (1, 1))],
)
def test_a_tensor_outside_its_storage_is_refused(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="outside its storage of 6 elements"):
        read_tensors(written({"x": tensor(offset, shape, strides)}, SIX))


def test_another_file_is_refused() -> None:
    whole = written({"rows": tensor(0, (2, 3), (3, 1))}, SIX)
    for content in (b"", b"text", whole[:-1], whole[:40], pickle.dumps(12), written({}, {}, magic=1)):
        with pytest.raises(ValueError, match=r"legacy torch file|cut short"):
            read_tensors(content)
