"""Parquet files as Orchard writes and reads them: a damaged file is an error, never other numbers.

Pages carry checksums, and a file's name carries the SHA-256 of its content. A file that is read whole, or is small, is held
against its name. Of a larger one that is read in part only the pages that are read are checked.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from orchard_jobs.contract.digests import sha256_in
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.storage import Warehouse
from orchard_jobs.store_errors import explaining_store_errors, plain_words

# What one request to a store brings in any case.
_SMALL_BYTES = 1024 * 1024


def pack(rows: pa.Table, use_dictionary: bool | Sequence[str] = True) -> bytes:
    """Return rows as the content of one Parquet file, in one row group.

    Args:
        rows: the rows.
        use_dictionary: the columns whose values recur, or all of them.
    """
    packed = io.BytesIO()
    pq.write_table(rows, packed, use_dictionary=use_dictionary, row_group_size=max(1, rows.num_rows), write_page_checksum=True)
    return packed.getvalue()


@contextmanager
def open_parquet(warehouse: Warehouse, path: str, *, is_whole: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a file for a block that reads it.

    Args:
        warehouse: where it lies.
        path: the file, relative to the warehouse.
        is_whole: whether the block reads nearly all of it.

    Raises:
        DamagedFileError: the file is not there, or its content is not what was written.
    """
    uri = warehouse.uri_of(path)
    try:
        with (
            explaining_store_errors(uri),
            pq.ParquetFile(_source(warehouse, path, is_whole), page_checksum_verification=True) as file,
        ):
            yield file
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # Arrow raises the plain class; what a store raises is explained above.
        if isinstance(error, OSError) and type(error) is not OSError:
            raise
        raise DamagedFileError(uri, f"cannot be decoded ({plain_words(error)})") from error


def read_parquet(warehouse: Warehouse, path: str) -> pa.Table:
    """Return all rows of a file; DamagedFileError when it is not there or is damaged."""
    with open_parquet(warehouse, path, is_whole=True) as file:
        return file.read()


def _source(warehouse: Warehouse, path: str, is_whole: bool) -> object:
    if is_whole:
        content = warehouse.read_if_there(path)
    else:
        file = warehouse.open_if_there(path)
        if file is not None and file.size_bytes > _SMALL_BYTES:
            return file
        content = None if file is None else file.read()
    if content is None:
        raise DamagedFileError(warehouse.uri_of(path), "is not there")
    expected = sha256_in(path)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedFileError(warehouse.uri_of(path), "has another content than its name says")
    return pa.BufferReader(content)
