"""A warehouse that travels to a worker without a network: a few files, and what was made of them."""

import pickle

import pytest
from orchard_jobs.errors import JobError
from orchard_jobs.storage import CarriedWarehouse


def test_it_holds_what_came_along_and_hands_over_what_was_made_once() -> None:
    carried = pickle.loads(pickle.dumps(CarriedWarehouse("s3://lake/warehouse", {"a/network.onnx": b"net"})))
    assert carried.read("a/network.onnx") == b"net"
    assert carried.create("b/part.parquet", b"rows")
    carried.rewrite("progress.json", b"1 of 2")
    assert carried.take() == [("b/part.parquet", b"rows")]
    assert carried.take() == []


def test_all_else_is_out_of_its_reach() -> None:
    carried = CarriedWarehouse("s3://lake/warehouse", {})
    with pytest.raises(JobError, match="is not there"):
        carried.read("a/network.onnx")
    for reach in (carried.open, carried.size, carried.sha256, lambda path: list(carried.files(path))):
        with pytest.raises(JobError, match="no network"):
            reach("a/network.onnx")
