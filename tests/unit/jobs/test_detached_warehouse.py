"""The warehouse of a worker without a network: copies of a few files, and the files that the worker creates."""

import pickle

import pytest
from orchard_jobs.errors import JobError
from orchard_jobs.storage import DetachedWarehouse


def test_it_reads_its_copies_and_hands_over_created_files_once() -> None:
    detached = pickle.loads(pickle.dumps(DetachedWarehouse("s3://lake/warehouse", {"a/network.onnx": b"net"})))
    assert detached.read("a/network.onnx") == b"net"
    assert detached.create("b/part.parquet", b"rows")
    detached.rewrite("progress.json", b"1 of 2")
    assert detached.take_created() == [("b/part.parquet", b"rows")]
    assert detached.take_created() == []


def test_it_reaches_no_other_file() -> None:
    detached = DetachedWarehouse("s3://lake/warehouse", {})
    with pytest.raises(JobError, match="is not there"):
        detached.read("a/network.onnx")
    for reach in (detached.open, detached.size, detached.sha256, lambda path: list(detached.files(path))):
        with pytest.raises(JobError, match="no network"):
            reach("a/network.onnx")
