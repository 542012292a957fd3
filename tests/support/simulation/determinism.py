"""What the product takes from its machine, replaced for the length of a history: time, names, threads, the store."""

import importlib
import logging
import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from random import Random
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pyarrow.parquet as pq
import pytest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import ManifestHead

from support.simulation.parquet_cache import CachedParquetFile
from support.simulation.store import Storage

# The modules that take the time: they stamp rows.
_STAMPING = (
    *("orchard.batch.publish", "orchard.models.model", "orchard.models.publish", "orchard.models.registry"),
    "orchard_jobs.classifier.stored",
)


class SerialPool:
    """Stands for a pool of threads: who takes turns is drawn by the seed alone."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is left to wait for."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)


@contextmanager
def determined(storage: Storage, seed: int) -> Iterator[None]:
    """Let a block take nothing from its machine that another run of it would not get."""
    calls, names, waits = storage.calls, Random(f"{seed} names"), Random(f"{seed} waits")

    def sleep(seconds: float) -> None:
        calls.clock.advance(seconds)
        calls.scheduler.pause()

    with pytest.MonkeyPatch.context() as patch:
        for name in _STAMPING:
            patch.setattr(importlib.import_module(name), "datetime", calls.clock.as_datetime())
        time = SimpleNamespace(sleep=sleep, monotonic=lambda: calls.clock.of_store.timestamp())
        for name in ("orchard.tables.commit_rule", "orchard.launchers.emr_hook", "orchard.launchers.resumable_job"):
            patch.setattr(f"{name}.time", time)
        patch.setattr("orchard.launchers.request.Warehouse", SimpleNamespace(at=lambda uri: storage.tables.warehouse))
        patch.setattr("orchard.batch.known_contents.ThreadPoolExecutor", SerialPool)
        patch.setattr(secrets, "token_hex", lambda size: f"{names.getrandbits(8 * size):0{2 * size}x}")
        patch.setattr(random, "random", waits.random)
        if storage.is_in_memory:
            patch.setattr(pq, "ParquetFile", CachedParquetFile)
        # Heads and reports never change, and are read dozens of times.
        for document in (ManifestHead, JobReport):
            patch.setattr(document, "from_json", lru_cache(None)(document.from_json))
        # What is logged is of no interest by the thousand, and takes a third of the time.
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)  # also makes each logger forget that it was silent
