"""Damage to a warehouse's files, as disks, tools and people do it."""

from collections.abc import Callable

from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile
from orchard_jobs.contract.columns import Table
from orchard_jobs.storage import Warehouse


def lose(warehouse: Warehouse, path: str) -> None:
    warehouse.delete(path)


def cut(warehouse: Warehouse, path: str) -> None:
    """Keep the first half."""
    content = warehouse.read(path)
    warehouse.rewrite(path, content[: len(content) // 2])


def flip(warehouse: Warehouse, path: str, bit: int = 8 * 9) -> None:
    """Flip one bit; by default in the content of the first page."""
    content = bytearray(warehouse.read(path))
    content[bit // 8] ^= 1 << bit % 8
    warehouse.rewrite(path, bytes(content))


DAMAGES: dict[str, Callable[[Warehouse, str], None]] = {"lost": lose, "cut": cut, "flipped": flip}


def file_of(tables: Tables, table: Table, **partition: str) -> TableFile:
    """Return the first file that a table names of some partition."""
    return tables.load(table).files(**partition)[0]
