"""Columns that a release adds to a table: an existing table's log learns them, and they are null in its older rows."""

from collections.abc import Callable

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.schema import Schema
from orchard_jobs.contract.columns import Table
from orchard_jobs.errors import JobError
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.store_errors import explaining_store_errors

_ATTEMPTS = 20


def add_missing_columns(load: Callable[[], DeltaTable], table: Table) -> None:
    """Add the columns to a table's log that it does not know. Two at once do no harm.

    A commit that was decided on before conflicts with it, and is then decided afresh, as with any other commit.

    Args:
        load: returns the table at its newest version.
        table: its columns; each that may be missing is nullable.

    Raises:
        JobError: its store cannot be written, or 20 commits conflicted with other writers.
    """
    for _ in range(_ATTEMPTS):
        delta = load()
        known = {field.name for field in delta.schema().fields}
        missing = [field for field in Schema.from_arrow(arrow_schema(table)).fields if field.name not in known]
        if not missing:
            return
        try:
            with explaining_store_errors(f"table {table.name}"):
                delta.alter.add_columns(missing)
        except CommitFailedError:
            continue
    raise JobError(f"{table.name}: gave up after {_ATTEMPTS} conflicts with other writers; run the task again")
