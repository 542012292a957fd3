"""A damaged Parquet file is an error, never other numbers."""

import hashlib
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import orchard_jobs.parquet
import pyarrow as pa
import pytest
from orchard_jobs.contract.columns import MOMENTS
from orchard_jobs.contract.digests import sha256_in, staged_name
from orchard_jobs.contract.layout import random_element, staged_path
from orchard_jobs.errors import DamagedFileError, JobError
from orchard_jobs.parquet import open_parquet, pack, read_parquet
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

FLIPS = 200


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.at(str(tmp_path))


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    vectors = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    return pa.table({"name": [f"image {n}" for n in range(64)], "vector": list(vectors), "n": range(64)})


def placed(warehouse: Warehouse, content: bytes) -> str:
    path = f"features/{staged_name(hashlib.sha256(content).hexdigest())}"
    warehouse.create(path, content)
    return path


def test_a_name_tells_the_content(warehouse: Warehouse, rows: pa.Table) -> None:
    content = pack(rows)
    assert sha256_in(placed(warehouse, content)) == hashlib.sha256(content).hexdigest()


def test_a_name_of_an_earlier_release_tells_none() -> None:
    assert sha256_in("features/part-0123456789abcdef.parquet") is None


def test_what_is_written_is_read(warehouse: Warehouse, rows: pa.Table) -> None:
    assert read_parquet(warehouse, placed(warehouse, pack(rows))).equals(rows)


def test_no_flipped_bit_is_read_as_other_numbers(warehouse: Warehouse, rows: pa.Table) -> None:
    content = pack(rows)
    path = placed(warehouse, content)
    drawn = random.Random(7)
    for _ in range(FLIPS):
        bit = drawn.randrange(8 * len(content))
        warehouse.rewrite(path, _flipped(content, bit))
        with pytest.raises(DamagedFileError, match="does not match the SHA-256 in its name"):
            read_parquet(warehouse, path)


def test_no_flipped_bit_in_a_page_is_read_in_part(warehouse: Warehouse, rows: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large file, of which a part is read, the checksums of the pages are all that there is."""
    monkeypatch.setattr(orchard_jobs.parquet, "_SMALL_BYTES", 0)
    content = pack(rows)
    path, drawn, found = placed(warehouse, content), random.Random(7), 0
    pages = _footer_start(content)
    for _ in range(FLIPS):
        warehouse.rewrite(path, _flipped(content, drawn.randrange(8 * pages)))
        try:
            with open_parquet(warehouse, path) as file:
                assert file.read(["name", "n"]).equals(rows.select(["name", "n"]))
        except DamagedFileError:
            found += 1
    assert found > 0


def test_no_flipped_bit_in_a_footer_is_read_in_part(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A footer tells columns, types, places and compression: under another one, whole pages are other values."""
    monkeypatch.setattr(orchard_jobs.parquet, "_SMALL_BYTES", 0)
    content = pack(pa.table({"n": range(3)}))
    path = placed(warehouse, content)
    with open_parquet(warehouse, path) as file:
        assert file.metadata.num_rows == 3
    for damaged in _with_flipped_footers(content):
        warehouse.rewrite(path, damaged)
        with pytest.raises(DamagedFileError), open_parquet(warehouse, path) as file:
            raise AssertionError(f"not seen: {file.metadata}")


def test_a_footer_without_a_checksum_has_to_count_its_rows(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchard_jobs.parquet, "_SMALL_BYTES", 0)
    content = pack(pa.table({"n": range(3)}))
    path, found = placed(warehouse, content), set()
    for damaged in _with_flipped_footers(content):
        warehouse.rewrite(path, damaged.replace(b"footerCRC32", b"nothingHere"))
        with suppress(DamagedFileError), open_parquet(warehouse, path) as file:
            found.add(file.metadata.num_rows)
    assert found == {3}


MOMENTS_SCHEMA = arrow_schema(MOMENTS)
OTHER_SCHEMAS = {
    r"n is timestamp\[us\], not int64": MOMENTS_SCHEMA.set(1, pa.field("n", pa.timestamp("us"))),
    "columns are manifest_digest, mean, second_moment, not manifest_digest, n,": MOMENTS_SCHEMA.remove(1),
}


@pytest.mark.parametrize("words", OTHER_SCHEMAS)
def test_a_footer_has_to_have_its_table_s_schema(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(orchard_jobs.parquet, "_SMALL_BYTES", 0)
    path = staged_path(MOMENTS, ("backbone", "2026-01-01"), None, random_element(), "part-of-an-earlier-release.parquet")
    warehouse.create(path, pack(OTHER_SCHEMAS[words].empty_table()))
    with pytest.raises(DamagedFileError, match=f"has another schema than table moments: {words}"), open_parquet(warehouse, path):
        raise AssertionError("opened")


@pytest.mark.parametrize("read", [read_parquet, lambda *where: open_parquet(*where).__enter__()], ids=["whole", "in part"])
def test_a_lost_file_is_named(warehouse: Warehouse, read: Callable[[Warehouse, str], object]) -> None:
    with pytest.raises(DamagedFileError, match=r"/gone\.parquet is not there: `orchard verify`"):
        read(warehouse, "gone.parquet")


def test_a_cut_file_of_an_earlier_release_is_named(warehouse: Warehouse, rows: pa.Table) -> None:
    warehouse.create("old.parquet", pack(rows)[:-10])
    with pytest.raises(DamagedFileError, match=r"/old\.parquet cannot be decoded"):
        read_parquet(warehouse, "old.parquet")


def test_a_store_s_own_refusal_is_no_damage(warehouse: Warehouse, rows: pa.Table) -> None:
    path = placed(warehouse, pack(rows))
    with pytest.raises(JobError) as raised, open_parquet(warehouse, path):
        raise PermissionError(13, "not for you")
    assert not isinstance(raised.value, DamagedFileError)


def test_a_worker_s_error_reaches_its_driver() -> None:
    error = DamagedFileError("s3://warehouse/x", "is not there")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.uri, copy.fault) == (str(error), error.uri, error.fault)


def _flipped(content: bytes, bit: int) -> bytes:
    found = bytearray(content)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def _footer_start(content: bytes) -> int:
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def _with_flipped_footers(content: bytes) -> Iterator[bytes]:
    return (_flipped(content, bit) for bit in range(8 * _footer_start(content), 8 * len(content)))
