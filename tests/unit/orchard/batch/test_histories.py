"""Whatever happened on the way: the tables are those of one clean run over the last seen content of every key."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test
from orchard.settings import Settings
from orchard_jobs.contract.backbones import backbone_named
from support.histories import CleanedHistory, History
from support.storage import Storage, on_disk

DIMENSION = 6
IN_MEMORY = int(os.environ.get("SOAK_HISTORIES", "300"))
CLEANED = max(30, IN_MEMORY // 10)
ON_DISK = max(10, IN_MEMORY // 100)


@pytest.fixture
def two_backbones(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose two backbones are small."""
    small = {name: replace(backbone_named(name), dimension=DIMENSION) for name in ("efficientnet_lite0", "resnet50")}
    monkeypatch.setattr(Settings, "backbone", property(lambda self: small[self.backbone_name]))
    return Settings.from_environment({"ORCHARD_WAREHOUSE": "/never/written"})


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
