"""The logs in memory, which the histories run on, against delta-rs: random sequences of commits end alike on both."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from orchard.tables.delta_log import ConflictError, DeltaLog, DeltaSnapshot, Mode, Snapshot, TableLog
from orchard_jobs.contract.columns import FEATURES, RUNS, Table
from orchard_jobs.contract.jobs import StagedFile, StagedPartition
from orchard_jobs.storage import Warehouse
from support.simulation.memory_log import MemoryLog

COMMITS = 40


@dataclass
class Writer:
    """Someone who loads snapshots and commits from them, also when they are old by then."""

    log: TableLog
    table: Table
    held: list[Snapshot]

    def commit(self, which: int, staged: list[StagedPartition], transactions: dict[str, int], mode: Mode) -> str:
        try:
            self.log.commit(self.held[which], self.table, staged, transactions, mode)
        except ConflictError:
            return "conflict"
        return "committed"


def shown(snapshot: Snapshot, names: list[str]) -> tuple[object, ...]:
    files = [(file.path, file.size_bytes, file.rows, dict(file.partition)) for file in snapshot.files()]
    return snapshot.version, files, [snapshot.transaction(name) for name in names]


@pytest.mark.parametrize(("seed", "table"), [(0, FEATURES), (1, RUNS), (2, FEATURES)])
def test_memory_logs_do_what_delta_rs_does(seed: int, table: Table, tmp_path: Path) -> None:
    begun = datetime.now(UTC)
    draw, names = Random(seed), [f"batch:b/{day}" for day in range(3)]
    logs: list[TableLog] = [MemoryLog(lambda: datetime.now(UTC)), DeltaLog(Warehouse.at(str(tmp_path)))]
    for log in logs:
        log.create(table)
    writers = [Writer(log, table, [log.load(table)]) for log in logs]
    outcomes = set()
    for number in range(COMMITS):
        days = draw.sample(range(3), draw.randint(1, 2))
        staged = [staged_partition(table, day, draw.randint(0, 2), f"{number}") for day in days]
        transactions = {f"batch:b/{day}": draw.randint(1, number + 1) for day in days}
        mode: Mode = draw.choice(("overwrite", "append"))
        which = draw.choice((-1, -1, draw.randrange(len(writers[0].held))))
        found = [writer.commit(which, staged, transactions, mode) for writer in writers]
        assert found[0] == found[1]
        outcomes.add(found[0])
        if draw.random() < 0.8:
            for writer in writers:
                writer.held.append(writer.log.load(table))
        memory, delta = (log.load(table) for log in logs)
        assert shown(memory, names) == shown(delta, names)
    version = draw.randrange(memory.version)
    assert shown(logs[0].load(table, version), names) == shown(logs[1].load(table, version), names)
    assert logs[0].replaced(table).keys() == logs[1].replaced(table).keys()
    newest = logs[1].load(table)
    assert isinstance(newest, DeltaSnapshot)
    newest.delta.create_checkpoint()
    assert logs[0].replaced(table).keys() == logs[1].replaced(table).keys()
    assert {moment.date() for log in logs for moment in log.replaced(table).values()} <= {begun.date(), datetime.now(UTC).date()}
    assert outcomes == {"committed", "conflict"}


def staged_partition(table: Table, day: int, files: int, name: str) -> StagedPartition:
    partition = ("b", f"2026-01-0{day + 1}")
    folder = "/".join(f"{column}={value}" for column, value in zip(table.partition_by, partition, strict=True))
    staged = (StagedFile(f"{table.name}/{folder}/{name}/part-{i}.parquet", 10 + i, i, "0" * 64) for i in range(files))
    return StagedPartition(table.name, partition, tuple(staged))
