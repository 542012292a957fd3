"""What tests of a plan share: days, keys, and the numbers of a run."""

from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import RUNS

DAY = "2026-01-01"


NEXT_DAY = "2026-01-02"


def key(name: str, day: str = DAY, label: str = "apple") -> str:
    return f"images/{day}/{label}/{name}"


def runs_row_of(tables: Tables, day: str) -> dict[str, object]:
    (row,) = tables.rows(RUNS, batch_id=day)
    return row


def runs_row(tables: Tables, number: int = 1) -> dict[str, object]:
    (row,) = [row for row in tables.rows(RUNS) if row["version"] == number]
    return row
