"""Numbered tasks: each number's text once and in order, also when a worker dies."""

import os
import signal
from pathlib import Path

import pyspark
from orchard_jobs.stages.workers import Task, Workers


def marking(folder: Path) -> Task:
    """Return a task that leaves a mark; number 3 kills its worker the first time. A closure: no worker can import this module."""

    def task(number: int) -> str:
        mark = folder / str(number)
        is_first = not mark.exists()
        mark.touch()
        if number == 3 and is_first:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{number} squared is {number**2}"

    return task


def test_texts_come_in_the_order_of_the_numbers_though_a_worker_dies(workers: Workers, tmp_path: Path) -> None:
    expected = [f"{number} squared is {number**2}" for number in range(9)]
    assert workers.run(9, marking(tmp_path)) == expected
    assert len(list(tmp_path.iterdir())) == 9


def test_workers_import_the_installed_pyspark_and_not_its_zip(workers: Workers) -> None:
    def path_of_pyspark(_: int) -> str:
        import pyspark

        return str(pyspark.__file__)

    assert workers.run(1, path_of_pyspark) == [pyspark.__file__]


def test_arrow_does_not_import_pandas_in_a_worker(workers: Workers) -> None:
    def pandas_after_an_array(_: int) -> str:
        import sys

        import pyarrow as pa

        return f"{pa.array([1]).to_pylist()} {sys.modules.get('pandas')}"

    assert workers.run(1, pandas_after_an_array) == ["[1] None"]


def test_a_few_tasks_take_many_numbers(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "3").touch()
    assert len(workers.run(50, marking(tmp_path), at_most=2)) == 50
    assert workers.run(0, marking(tmp_path)) == []
