"""Parquet files that are decoded once: a history reads the same few small files hundreds of times.

No path is written twice, so a file's bytes are its identity; bytes that were cut short are decoded, and fail, like any others.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

_ParquetFile = pq.ParquetFile


@lru_cache(4096)
def _decoded(content: bytes) -> pa.Table:
    with _ParquetFile(BytesIO(content)) as file:
        return file.read(use_threads=False)


class CachedParquetFile:
    """What the product uses of `pq.ParquetFile`, over bytes in memory."""

    def __init__(self, source: Any, page_checksum_verification: bool = False) -> None:
        self._table = _decoded(bytes(source.read()))
        self.schema_arrow = self._table.schema
        self.metadata = SimpleNamespace(num_rows=self._table.num_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is open."""

    def read(self, columns: Sequence[str] | None = None, use_threads: bool = False) -> pa.Table:
        return self._table if columns is None else self._table.select(list(columns))

    def iter_batches(
        self, batch_size: int = 65536, columns: Sequence[str] | None = None, use_threads: bool = False
    ) -> Iterator[Any]:
        yield from self.read(columns).to_batches(batch_size)
