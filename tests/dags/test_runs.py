"""Real runs of the DAGs, in this process: the tasks are the use cases in the order that the documentation says."""

import os
from pathlib import Path

import pytest
from support.broken_steps import BrokenStep, broken_steps, is_seen_by
from support.dag_scenario import check_runs

pytestmark = pytest.mark.usefixtures("metadata_database")


def test_runs_do_what_their_dags_document(tmp_path: Path) -> None:
    check_runs(tmp_path)


@pytest.mark.skipif("SOAK_STEPS" not in os.environ, reason="takes minutes: make soak")
@pytest.mark.parametrize("step", list(broken_steps()), ids=str)
def test_dag_runs_see_a_missing_step(step: BrokenStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step.module, step.name, step.function)
    assert is_seen_by(lambda: check_runs(tmp_path))
