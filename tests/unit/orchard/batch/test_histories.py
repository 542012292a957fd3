"""Whatever happened on the way: the tables are those of one clean run over the last seen content of every key."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test
from orchard.settings import Settings
from support.broken_steps import BrokenStep, broken_steps, is_seen_by
from support.histories import BACKBONES, SMALL, CleanedHistory, History
from support.storage import Storage, on_disk

IN_MEMORY = int(os.environ.get("SOAK_HISTORIES", "300"))
CLEANED = max(30, IN_MEMORY // 10)
ON_DISK = max(10, IN_MEMORY // 100)


@pytest.fixture
def two_backbones() -> Settings:
    """Settings with the first of two small backbones."""
    return replace(Settings.from_environment({"ORCHARD_WAREHOUSE": "/never/written"}), backbone=SMALL[BACKBONES[0]])


def run_histories(machine: type[History], count: int) -> None:
    machine.lived = 0
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=count,
            stateful_step_count=20,
            deadline=None,
            database=None,
            derandomize="SOAK_HISTORIES" not in os.environ,
            suppress_health_check=list(HealthCheck),
            # A long history shrinks for minutes; ask for it when one has failed.
            phases=set(Phase) if os.environ.get("SOAK_SHRINK") else {Phase.explicit, Phase.generate},
        ),
    )
    print(f"{machine.__name__}: {machine.lived} histories")
    assert machine.lived >= count


def test_tables_depend_on_the_bucket_alone(two_backbones: Settings) -> None:
    class InMemory(History):
        base_settings = two_backbones

    run_histories(InMemory, IN_MEMORY)


def test_cleaning_takes_nothing_that_is_in_use(two_backbones: Settings) -> None:
    class Cleaned(CleanedHistory):
        base_settings = two_backbones

    run_histories(Cleaned, CLEANED)


def test_real_delta_tables_behave_alike(two_backbones: Settings, tmp_path: Path) -> None:
    folders = iter(range(1_000_000))

    def fresh() -> Storage:
        return on_disk(tmp_path / str(next(folders)))

    class OnDisk(History):
        base_settings = two_backbones
        make_storage = staticmethod(fresh)

    class CleanedOnDisk(CleanedHistory):
        base_settings = two_backbones
        make_storage = staticmethod(fresh)

    for machine in (OnDisk, CleanedOnDisk):
        run_histories(machine, ON_DISK // 2)


@pytest.mark.skipif("SOAK_STEPS" not in os.environ, reason="takes minutes: make soak")
@pytest.mark.parametrize("step", list(broken_steps()), ids=str)
def test_histories_see_a_missing_step(step: BrokenStep, two_backbones: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(History):
        base_settings = two_backbones

    monkeypatch.setattr(step.module, step.name, step.function)
    assert is_seen_by(lambda: run_histories(Broken, 300))
