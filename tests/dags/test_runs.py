"""Real runs of the DAGs, in this process: the tasks are the use cases in the order that the documentation says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.broken_steps import BrokenStep, broken_steps, is_seen_by
from support.dag_runs import airflow_with
from support.dag_scenario import CHAPTERS, Chapter, Story, check_runs

pytestmark = pytest.mark.usefixtures("metadata_database")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, metadata_database: None) -> Iterator[Story]:
    """One Airflow for all chapters."""
    with airflow_with(tmp_path_factory.mktemp("story")) as airflow:
        yield Story(airflow)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.__name__)
def test_runs_do_what_their_dags_document(story: Story, chapter: Chapter) -> None:
    story.play_to(chapter)


@pytest.mark.skipif("SOAK_STEPS" not in os.environ, reason="takes minutes: make soak")
@pytest.mark.parametrize("step", list(broken_steps()), ids=str)
def test_dag_runs_see_a_missing_step(step: BrokenStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step.module, step.name, step.function)
    assert is_seen_by(lambda: check_runs(tmp_path))
