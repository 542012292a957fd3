"""Whatever happened on the way: the tables are those of one clean run over the last seen content of every key."""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from orchard.settings import Settings
from support.broken_steps import BrokenStep, broken_steps, is_seen_by
from support.repository import ROOT
from support.simulation.history import History
from support.simulation.planted_faults import PLANTED, PlantedFault
from support.simulation.store import Storage, in_memory, on_disk

HISTORIES = int(os.environ.get("SOAK_HISTORIES", "150"))
FIRST = int(os.environ.get("SOAK_FIRST_SEED", "0"))
ON_DISK = max(8, HISTORIES // 200)
# A change of the product may move a planted fault to another history than the one that is known for it.
NEAR = 40
WITHIN = 2_000
REPLAY = "SEED={} .venv/airflow/bin/python -m pytest -s tests/unit/orchard/batch/test_histories.py -k one_seed"
SETTINGS = Settings.from_environment({"ORCHARD_WAREHOUSE": "/never/written"})


def live(seed: int, storage: Storage | None = None) -> None:
    """Live a seed's history; on an error say how to live it again."""
    try:
        History(seed, SETTINGS, storage or in_memory()).live()
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise AssertionError(f"history {seed}: {told}\nto see it again: {REPLAY.format(seed)}") from error


def live_all(seeds: Iterable[int]) -> None:
    """Live many histories, and print how many a core lives in a minute."""
    # What was imported is never garbage; to look through it again and again takes a tenth of the time.
    gc.collect()
    gc.freeze()
    begun, number = time.process_time(), 0
    for seed in seeds:
        live(seed)
        number += 1
    print(f"{number} histories, {number * 60 / (time.process_time() - begun):.0f} a minute a core")


def test_tables_depend_on_the_bucket_alone() -> None:
    live_all(range(FIRST, FIRST + HISTORIES))


def test_real_delta_tables_behave_alike(tmp_path: Path) -> None:
    for seed in range(FIRST, FIRST + ON_DISK):
        live(seed, on_disk(tmp_path / str(seed)))


@pytest.mark.skipif("SEED" not in os.environ, reason="replays the history of SEED")
def test_one_seed_is_lived_again() -> None:
    storage = in_memory()
    storage.calls.trace = print
    history = History(int(os.environ["SEED"]), SETTINGS, storage)
    print(history.climate)
    history.live()


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    script = "\n".join(
        (
            "from hashlib import sha256",
            "from orchard.settings import Settings",
            "from support.simulation.history import History",
            "from support.simulation.store import in_memory",
            "told = sha256()",
            "for seed in range(6):",
            "    storage = in_memory()",
            "    storage.calls.trace = lambda line: told.update(line.encode())",
            '    History(seed, Settings.from_environment({"ORCHARD_WAREHOUSE": "/never/written"}), storage).live()',
            "print(told.hexdigest())",
        )
    )
    places = {"PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("plugins", "spark_jobs", "tests"))}

    def digest(hash_seed: str) -> bytes:
        environment = os.environ | places | {"PYTHONHASHSEED": hash_seed}
        return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True).stdout.split()[-1]

    assert digest("1") == digest("2")


def first_that_sees(fault: PlantedFault, seeds: Iterable[int], patch: pytest.MonkeyPatch) -> int | None:
    """Return the first of some seeds whose history ends otherwise than without the fault."""
    for seed in seeds:
        with patch.context() as planted:
            fault.plant(planted)
            if is_seen_by(partial(live, seed)):
                return seed
    return None


def near(seed: int) -> Iterator[int]:
    """Yield a seed, and those around it."""
    yield seed
    yield from (one for one in range(max(0, seed - NEAR), seed + NEAR) if one != seed)


@pytest.mark.parametrize("fault", PLANTED, ids=str)
def test_a_rule_of_the_protocol_that_is_off_is_seen(fault: PlantedFault, monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_that_sees(fault, near(fault.seed), monkeypatch)
    assert found is not None, f"no history near {fault.seed} sees that {fault} any more: `make soak` finds one"


@pytest.mark.skipif("SOAK_PLANTED" not in os.environ, reason="takes minutes: make soak")
@pytest.mark.parametrize("fault", PLANTED, ids=str)
def test_every_planted_fault_is_found_by_search(fault: PlantedFault, monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_that_sees(fault, range(WITHIN), monkeypatch)
    print(f"({fault}, {found}),")
    assert found is not None


@pytest.mark.skipif("SOAK_STEPS" not in os.environ, reason="takes minutes: make soak")
@pytest.mark.parametrize("step", list(broken_steps()), ids=str)
def test_histories_see_a_missing_step(step: BrokenStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step.module, step.name, step.function)
    assert is_seen_by(lambda: live_all(range(300)))
