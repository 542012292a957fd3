"""Parquet files as Orchard writes and reads them: a damaged file is an error, never other numbers.

Pages carry checksums, and a file's name carries the SHA-256 of its content. A file that is read whole, or is small, is compared
with its name. If a larger file is read in part, the pages that are read and the footer are checked. The footer's checksum stands
before it, where readers of Parquet do not look. Files of an earlier release have none.
"""

import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import MODELS, Table
from orchard_jobs.contract.digests import sha256_in
from orchard_jobs.contract.layout import ModelPath, StagedPath, parse
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.schemas import schema_differences
from orchard_jobs.storage import SeekableFile, Warehouse
from orchard_jobs.store_errors import explaining_store_errors, plain_words

# What one request to a store brings in any case.
_SMALL_BYTES = 1024 * 1024
# Longer than any footer of one row group.
_TAIL_BYTES = 64 * 1024
# After the footer: its length in 4 bytes, and Parquet's own 4. Before it: the mark, and 4 bytes of the checksum.
_LENGTH_BYTES, _MARK = 8, b"footerCRC32:"
_MARK_BYTES = len(_MARK) + 4
_OF_MODELS = {table.name: table for table in (MODELS, CLASSIFIERS)}


def pack(rows: pa.Table, use_dictionary: bool | Sequence[str] = True, rows_a_group: int | None = None) -> bytes:
    """Return rows as the content of one Parquet file.

    Args:
        rows: the rows.
        use_dictionary: the columns whose values recur, or all of them.
        rows_a_group: the rows in a row group, for a reader that takes a part of them; None: all in one.
    """
    packed, size = io.BytesIO(), rows_a_group or max(1, rows.num_rows)
    pq.write_table(rows, packed, use_dictionary=use_dictionary, row_group_size=size, write_page_checksum=True)
    content = packed.getvalue()
    footer = content[_footer_start(content) :]
    return content[: -len(footer)] + _checksum(footer) + footer


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
        with explaining_store_errors(uri):
            source = _source(warehouse, path, is_whole)
            with pq.ParquetFile(source, page_checksum_verification=True) as file:
                if isinstance(source, SeekableFile):
                    _check_metadata(uri, path, file)
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


def _source(warehouse: Warehouse, path: str, is_whole: bool) -> SeekableFile | pa.BufferReader:
    """Return a file's content, held against its name, or the file where it is large and read in part, with a checked footer."""
    if is_whole:
        content = warehouse.read_if_there(path)
    else:
        file = warehouse.open_if_there(path)
        if file is not None and file.size_bytes > _SMALL_BYTES:
            _check_footer(warehouse.uri_of(path), file)
            return file
        content = None if file is None else file.read()
    if content is None:
        raise DamagedFileError(warehouse.uri_of(path), "is not there")
    expected = sha256_in(path)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedFileError(warehouse.uri_of(path), "does not match the SHA-256 in its name")
    return pa.BufferReader(content)


def _check_footer(uri: str, file: SeekableFile) -> None:
    """Hold a file's footer against the checksum before it, where there is one."""
    file.seek(-min(_TAIL_BYTES, file.size_bytes), io.SEEK_END)
    tail = file.read()
    start = _footer_start(tail)
    before = tail[start - _MARK_BYTES : start] if start >= _MARK_BYTES else b""
    if before.startswith(_MARK) and before != _checksum(tail[start:]):
        raise DamagedFileError(uri, "has another footer than was written")


def _footer_start(tail: bytes) -> int:
    """Return where the footer begins in a file's last bytes; negative where they do not hold all of it."""
    length = int.from_bytes(tail[-_LENGTH_BYTES : 4 - _LENGTH_BYTES], "little")
    return len(tail) - _LENGTH_BYTES - length


def _checksum(footer: bytes) -> bytes:
    """Return what stands before a footer; it covers the footer's length as well."""
    return _MARK + zlib.crc32(footer).to_bytes(4, "little")


def _check_metadata(uri: str, path: str, file: pq.ParquetFile) -> None:
    """See that a file counts its rows, and has the columns and types of its table: what tells without a checksum."""
    metadata = file.metadata
    rows = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    if rows != metadata.num_rows:
        raise DamagedFileError(uri, f"counts {metadata.num_rows} rows, its row groups {rows}")
    table = _table_of(path)
    differences = schema_differences(file.schema_arrow, table) if table else []
    if table and differences:
        raise DamagedFileError(uri, f"has another schema than table {table.name}: {'; '.join(differences)}")


def _table_of(path: str) -> Table | None:
    """Return the table that a file is of, by its path."""
    found = parse(path)
    if isinstance(found, StagedPath):
        return found.table
    return _OF_MODELS[found.table] if isinstance(found, ModelPath) else None
