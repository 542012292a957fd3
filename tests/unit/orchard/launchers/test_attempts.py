"""Attempts at a piece of work: one at a time, each with a token of its own, counted by recorded ends."""

from pathlib import Path

import pytest
from orchard.launchers.attempts import Attempts
from orchard_jobs.storage import Warehouse

WORK = "e" * 64


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(Warehouse.at(str(tmp_path)), WORK)


def test_the_first_attempt_is_number_one_and_nothing_ended_before_it(attempts: Attempts) -> None:
    assert (attempts.current, attempts.started(1), attempts.last_end) == (1, None, None)


def test_an_attempt_is_claimed_once(attempts: Attempts) -> None:
    assert attempts.claim(1)
    assert not attempts.claim(1)
    assert attempts.current == 1


def test_the_job_that_a_token_reached_stays_recorded(attempts: Attempts) -> None:
    attempts.record_start(1, {"job_run_id": "a"})
    attempts.record_start(1, {"job_run_id": "b"})
    assert attempts.started(1) == {"job_run_id": "a"}


def test_the_next_attempt_begins_when_an_end_is_recorded(attempts: Attempts) -> None:
    attempts.record_end(1, "FAILED", "out of memory")
    attempts.record_end(1, "CANCELLED", "")
    assert attempts.current == 2
    assert attempts.last_end == "attempt 1 ended as FAILED: out of memory"


def test_an_end_without_words_says_so(attempts: Attempts) -> None:
    attempts.record_end(1, "FAILED", "")
    assert attempts.last_end == "attempt 1 ended as FAILED: no reason given"


def test_a_token_belongs_to_one_attempt_at_one_work_in_one_warehouse(attempts: Attempts, tmp_path: Path) -> None:
    others = [attempts.token(2), Attempts(attempts.warehouse, "f" * 64).token(1)]
    others.append(Attempts(Warehouse.at(str(tmp_path / "other")), WORK).token(1))
    assert len({attempts.token(1), *others}) == 4
    assert len(attempts.token(1)) == 64
    assert attempts.token(1) == attempts.token(1)
